// Every command has a key; `?` shows them.

import { send } from "./connection.js";
import { hideWelcome, showExport, showWelcome } from "./dialogs.js";
import { removeObject, rename, startNew, toggleHidden } from "./objects.js";
import { fit, zoom } from "./stage.js";
import { emit, select, setTool, state } from "./state.js";
import { cancel, nextHint, pause, play, run, step } from "./transport.js";

const by = (id) => document.getElementById(id);

export function toggleMasks() {
  state.masks = !state.masks;
  by("masks").setAttribute("aria-pressed", state.masks);
  emit("look");
}

function escape() {
  if (!by("welcome").hidden && state.clip) hideWelcome();
  else if (state.run) cancel();
  else select(null);
}

function selectPlace(place) {
  if (state.objects[place]) select(state.objects[place].id);
}

function selectNeighbour(change) {
  const place = state.objects.findIndex((item) => item.id === state.selected);
  selectPlace(Math.max(0, Math.min(state.objects.length - 1, place + change)));
}

function setRadius(factor) {
  state.look.radius = Math.max(1, Math.min(120, Math.round(state.look.radius * factor + (factor > 1 ? 1 : -1))));
  by("radius").value = state.look.radius;
  emit("look");
}

const KEYS = [
  ["Space", "play or stop", play, " "],
  ["← →", "one frame; with Shift ten", null],
  ["Home End", "first, last frame", null],
  ["G", "go to a frame by its number", () => by("frame").select()],
  ["F", "next frame to look at", nextHint],
  ["R", "run forward from here", () => run("forward")],
  ["Shift R", "run backward from here", () => run("backward")],
  ["Alt R", "run both ways", () => run("both")],
  ["P", "pause a run, go on", pause],
  ["Esc", "stop a run; select nothing", escape, "Escape"],
  ["V", "click: left adds, right takes away, drag a box", () => setTool("click")],
  ["B", "brush", () => setTool("brush")],
  ["E", "eraser", () => setTool("eraser")],
  ["H", "move the picture (or drag with the wheel)", () => setTool("hand")],
  ["[ ]", "smaller, larger brush", null],
  ["N", "new object", startNew],
  ["1 to 9", "select an object", null],
  ["↑ ↓", "object above, below", null],
  ["Enter", "name the selected object", () => state.selected !== null && rename(state.selected)],
  ["S", "show or hide the selected object", () => state.selected !== null && toggleHidden(state.selected)],
  ["Del", "take the object from this frame", () => state.selected !== null && send({ do: "clear", frame: state.frame, id: state.selected }), "Delete"],
  ["Shift Del", "remove the object everywhere", () => state.selected !== null && removeObject(state.selected), "Shift Delete"],
  ["Ctrl Z", "undo", () => send({ do: "undo" })],
  ["Ctrl Shift Z", "redo (or Ctrl Y)", () => send({ do: "redo" })],
  ["M", "show or hide all masks", toggleMasks],
  ["0", "whole picture", fit],
  ["+ −", "zoom (or the wheel)", null],
  ["O", "open another video", showWelcome],
  ["X", "export", showExport],
  ["?", "this list", () => by("help-dialog").showModal()],
];

const byKey = new Map(KEYS.filter(([, , call]) => call).map(([name, , call, key]) => [(key ?? name).toLowerCase(), call]));
const MORE = {
  "arrowleft": () => step(-1), "arrowright": () => step(1), "shift arrowleft": () => step(-10), "shift arrowright": () => step(10),
  "home": () => step(-1e9), "end": () => step(1e9), "arrowup": () => selectNeighbour(-1), "arrowdown": () => selectNeighbour(1),
  "[": () => setRadius(0.8), "]": () => setRadius(1.25), "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "ctrl y": () => send({ do: "redo" }),
};
for (const [key, call] of Object.entries(MORE)) byKey.set(key, call);

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.target.matches?.("input:not([type=checkbox]):not([type=range]):not([type=color]):not(:read-only)")) return;
  const plain = event.key.length === 1 && !/[a-z]/i.test(event.key);
  const parts = [event.ctrlKey || event.metaKey ? "ctrl" : "", event.altKey ? "alt" : "", event.shiftKey && !plain ? "shift" : "", event.key.toLowerCase()];
  const name = event.key === " " ? " " : parts.filter(Boolean).join(" ");
  if (/^[1-9]$/.test(name)) {
    event.preventDefault();
    return selectPlace(Number(name) - 1);
  }
  const call = byKey.get(name);
  if (!call) return;
  event.preventDefault();
  if (state.clip || name === "?" || name === "o") call();
});

by("help-text").innerHTML = KEYS.map(([name, what]) => `<div><span>${name.split(" ").map((k) => (k === "to" ? "to" : `<kbd>${k}</kbd>`)).join(" ")}</span><span>${what}</span></div>`).join("");
by("help").addEventListener("click", () => by("help-dialog").showModal());
