// Starts the page and keeps its state as the server tells it.

import { connect, send } from "./connection.js";
import { hideWelcome, openClip, showExport, showWelcome, toast } from "./dialogs.js";
import { forget } from "./frames.js";
import { drawIcons } from "./icons.js";
import { toggleMasks } from "./keys.js";
import "./pointing.js";
import { fit, refresh } from "./stage.js";
import { emit, on, setMarks, setTool, state } from "./state.js";
import { showAll } from "./timeline.js";
import "./transport.js";

const by = (id) => document.getElementById(id);

function takeDocument(message) {
  state.objects = message.objects;
  state.keys = message.keys;
  if (!state.objects.some((item) => item.id === state.selected)) state.selected = null;
  by("undo").disabled = message.undo === null;
  by("redo").disabled = message.redo === null;
  by("undo").title = message.undo === null ? "Undo (Ctrl Z)" : `Undo: ${message.undo} (Ctrl Z)`;
  by("redo").title = message.redo === null ? "Redo (Ctrl Shift Z)" : `Redo: ${message.redo} (Ctrl Shift Z)`;
}

function showHolder() {
  const banner = by("banner");
  banner.hidden = state.clip.mine;
  refresh();
  if (state.clip.mine) return;
  const button = document.createElement("button");
  button.textContent = "Take over";
  button.addEventListener("click", () => send({ do: "take" }));
  banner.replaceChildren("This video is open in another window. Here you can look, not change.", button);
}

on("got:clip", (message) => {
  const again = state.clip?.key === message.key;
  const { key, frames, width, height, fps, mine } = message;
  state.clip = { key, frames, width, height, fps, mine };
  state.marks = new Map();
  state.computed = new Uint8Array(frames);
  forget();
  takeDocument(message);
  if (!again) {
    const { clip, frame } = place();
    state.frame = clip === key ? Math.min(frames - 1, frame) : 0;
    state.selected = null;
    state.hidden.clear();
    fit();
  }
  state.frame = Math.min(state.frame, frames - 1);
  by("clip-name").textContent = key;
  by("clip-facts").textContent = `${width} × ${height} · ${+fps.toFixed(3)} fps · saved in ${message.folder}`;
  by("frame-count").textContent = `/ ${frames - 1}`;
  by("export").disabled = false;
  document.title = `${key} – vidseg`;
  showHolder();
  showAll();
  hideWelcome();
  emit("frame");
  emit("objects");
  for (const text of message.warnings) toast(text, "error");
});

on("got:marks", ({ marks }) => {
  setMarks(marks);
  emit("objects");
});

on("got:changed", (message) => {
  setMarks(message.marks);
  for (const frame of message.frames) if (!(frame in message.marks)) state.computed[frame] = 0;
  takeDocument(message);
  by("saved").textContent = "saved";
  emit("objects");
  refresh();
});
on("got:saved", () => (by("saved").textContent = "saved"));
on("got:error", () => state.clip || showWelcome());
on("got:holder", ({ mine }) => {
  state.clip.mine = mine;
  showHolder();
});

on("online", (online) => {
  by("saved").textContent = online ? "" : "no connection to vidseg ui: what was done is saved; trying again…";
});

// Clip and frame stand in the address, so that a reload comes back to them.
function place() {
  const at = new URLSearchParams(location.hash.slice(1));
  return { clip: at.get("clip"), frame: Number(at.get("frame")) || 0 };
}
let noting = 0;
on("frame", () => {
  clearTimeout(noting);
  noting = setTimeout(() => {
    const at = new URLSearchParams({ clip: state.clip.key, frame: state.frame });
    history.replaceState(null, "", `${location.pathname}${location.search}#${at}`);
  }, 300);
});

by("open").addEventListener("click", () => (by("welcome").hidden ? showWelcome() : hideWelcome()));
by("export").addEventListener("click", showExport);
by("undo").addEventListener("click", () => send({ do: "undo" }));
by("redo").addEventListener("click", () => send({ do: "redo" }));
by("fit").addEventListener("click", fit);
by("masks").addEventListener("click", toggleMasks);
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => setTool(button.dataset.tool));
const LOOK = { opacity: (input) => input.value / 100, radius: (input) => +input.value };
for (const name of ["opacity", "radius", "contour", "dim", "labels"]) {
  by(name).addEventListener("input", (event) => {
    state.look[name] = LOOK[name]?.(event.target) ?? event.target.checked;
    emit("look");
  });
}

drawIcons();
setTool("click");
connect(() => {
  const key = state.clip?.key ?? place().clip;
  if (key) openAgain(key);
  else showWelcome();
});

function openAgain(key) {
  if (state.clip) send({ do: "open", key });
  else openClip(key);
}
