// Messages, the list of videos, uploads, exports.

import { clipUrl, send } from "./connection.js";
import { on, state } from "./state.js";

const by = (id) => document.getElementById(id);
const WHAT = {
  ytvis: "YouTube-VIS results", coco: "COCO", mots: "MOTS Challenge", davis: "palette PNG per frame", labelme: "LabelMe",
  report: "a page with pictures", overlay: "video with masks on it", "mots-png": "MOTS PNG, for CVAT", cvat: "CVAT for video",
  "label-studio": "Label Studio", yolo: "YOLO segmentation", cutout: "objects without background", frames: "the pictures",
  datumaro: "Datumaro", parquet: "a table, a row per object", "coco-results": "COCO results", "cutout-webm": "objects without background, as a video",
};

export function toast(text, kind = "") {
  const box = by("toasts");
  for (const old of box.children) if (old.textContent === text) old.remove();
  const item = document.createElement("div");
  item.className = `toast ${kind}`;
  item.textContent = text;
  item.addEventListener("click", () => item.remove());
  box.append(item);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => item.remove(), kind === "error" ? 12000 : 4500);
}

export function showWelcome() {
  by("welcome-title").textContent = "Open a video";
  send({ do: "list" });
  by("welcome").hidden = false;
}

export function hideWelcome() {
  if (state.clip) by("welcome").hidden = true;
}

on("got:error", ({ text }) => {
  by("welcome-title").textContent = "Open a video";
  toast(text, "error");
});

on("got:clips", ({ clips }) => {
  by("clips").replaceChildren(...clips.map((key) => {
    const button = document.createElement("button");
    button.textContent = key;
    button.addEventListener("click", () => openClip(key));
    return button;
  }));
  if (clips.length === 1 && !state.clip) openClip(clips[0]);
});

export function openClip(key) {
  if (state.clip?.key === key) return hideWelcome();
  by("welcome-title").textContent = `Opening ${key}…`;
  send({ do: "open", key });
}

function upload(file) {
  if (!file) return;
  const bar = by("upload-progress"), request = new XMLHttpRequest();
  request.open("PUT", new URL(`uploads/${encodeURIComponent(file.name)}`, document.baseURI));
  request.upload.onprogress = (event) => (bar.value = event.loaded / event.total);
  request.onloadend = () => {
    bar.hidden = true;
    let answer = {};
    try {
      answer = JSON.parse(request.responseText);
    } catch {
      answer = { error: "the upload was cut off" };
    }
    if (answer.key) openClip(answer.key);
    else toast(answer.error, "error");
  };
  bar.hidden = false;
  bar.value = 0;
  request.send(file);
}

by("upload").addEventListener("change", (event) => {
  upload(event.target.files[0]);
  event.target.value = "";
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    if (name === "dragover") showDrop(true);
    else if (name === "drop") {
      showDrop(false);
      upload(event.dataTransfer.files[0]);
    } else if (!event.relatedTarget) showDrop(false);
  });
}
function showDrop(shown) {
  by("welcome").classList.toggle("drop", shown);
  if (shown && by("welcome").hidden) showWelcome();
  else if (!shown) hideWelcome();
}

export function showExport() {
  if (!state.clip) return;
  const rows = document.body.dataset.formats.split(" ").map((name) => {
    const row = document.createElement("li");
    row.dataset.format = name;
    row.innerHTML = `<b>${name}</b><span class="what">${WHAT[name] ?? ""}</span><span class="result"></span><button>Make</button>`;
    row.querySelector("button").addEventListener("click", (event) => {
      event.target.disabled = true;
      row.querySelector(".result").textContent = "working…";
      send({ do: "export", format: name });
    });
    return row;
  });
  by("export-list").replaceChildren(...rows);
  by("export-dialog").showModal();
}

on("got:export", ({ format, file, error }) => {
  const row = by("export-list").querySelector(`[data-format="${format}"]`);
  const result = row?.querySelector(".result");
  if (!result) return;
  row.querySelector("button").disabled = false;
  if (error) {
    result.textContent = "";
    return toast(`${format}: ${error}`, "error");
  }
  const link = document.createElement("a");
  link.href = clipUrl(state.clip.key, `exports/${format}/${file}`);
  link.download = "";
  link.textContent = `Download ${file}`;
  result.replaceChildren(link);
});
