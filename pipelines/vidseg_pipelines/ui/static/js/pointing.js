// What the mouse does on the picture, by tool.

import { send } from "./connection.js";
import { toast } from "./dialogs.js";
import { idAt, pan, placeAt, pointer, refresh, zoom } from "./stage.js";
import { nameOf, on, select, state } from "./state.js";

const canvas = document.getElementById("canvas");
const hint = document.getElementById("hint");
const LEAST_DRAG = 5; // pixels of the window that make a click a box

let down = null;

canvas.addEventListener("contextmenu", (event) => event.preventDefault());

canvas.addEventListener("pointerdown", (event) => {
  if (!state.clip) return;
  document.activeElement?.blur?.();
  canvas.setPointerCapture(event.pointerId);
  const place = placeAt(event);
  down = { button: event.button, x: event.clientX, y: event.clientY, place, moved: false };
  if (event.button === 1 || state.tool === "hand") down.pans = true;
  else if (state.tool === "brush" || state.tool === "eraser") pointer.stroke = [[place.x, place.y]];
  refresh();
});

canvas.addEventListener("pointermove", (event) => {
  if (!state.clip) return;
  const place = (pointer.place = placeAt(event));
  if (down) {
    if (Math.hypot(event.clientX - down.x, event.clientY - down.y) > LEAST_DRAG) down.moved = true;
    if (down.pans) pan(event.movementX, event.movementY);
    else if (pointer.stroke) pointer.stroke.push([place.x, place.y]);
    else if (down.moved && down.button === 0) pointer.drag = [down.place.x, down.place.y, place.x, place.y];
  }
  explain();
  if (down || state.tool === "brush" || state.tool === "eraser") refresh();
});

canvas.addEventListener("pointerup", (event) => {
  if (!down) return;
  const { button, place, pans, moved } = down;
  const drag = pointer.drag, stroke = pointer.stroke;
  down = pointer.drag = pointer.stroke = null;
  if (!pans) {
    if (stroke) paintAlong(stroke, state.tool === "eraser" || button === 2);
    else if (drag) boxAround(drag);
    else if (!moved || button === 2) click(place, button !== 2);
  }
  refresh();
});

canvas.addEventListener("pointercancel", () => {
  down = pointer.drag = pointer.stroke = null;
  refresh();
});

canvas.addEventListener("pointerleave", () => {
  pointer.place = null;
  refresh();
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (!state.clip) return;
  const box = canvas.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

function mayChange() {
  if (state.clip.mine) return true;
  toast("This video is open in another window. Take over there to change it.", "error");
  return false;
}

function click(place, positive) {
  if (!mayChange()) return;
  const { width, height } = state.clip;
  if (place.x < 0 || place.y < 0 || place.x >= width || place.y >= height) return toast("This click lies outside the picture.");
  const here = idAt(place);
  if (state.selected === null && here && positive) return select(here);
  if (state.selected === null && !positive) {
    if (here) select(here);
    else return toast("A right click takes away from an object: select one first.");
  }
  ask({ do: "click", ...place, positive }, [place.x, place.y, positive ? 1 : 0]);
}

function boxAround(box) {
  if (mayChange()) ask({ do: "box", box });
}

function paintAlong(points, erase) {
  if (!mayChange()) return;
  if (erase && state.selected === null) return toast("The eraser takes away from an object: select one first.");
  ask({ do: "stroke", points, radius: state.look.radius, erase });
}

function ask(message, point = null) {
  pointer.waiting.push({ frame: state.frame, point });
  showBusy();
  send({ ...message, frame: state.frame, id: state.selected });
}

function answered() {
  pointer.waiting.shift();
  showBusy();
  refresh();
}

let loading = false;

function showBusy(now = loading) {
  loading = now;
  const busy = document.getElementById("busy");
  busy.hidden = !loading && pointer.waiting.length === 0;
  busy.textContent = loading ? "loading the models…" : "drawing…";
}

on("got:loading", ({ now }) => showBusy(now));
on("got:clip", (message) => showBusy(message.loading));

on("got:drawn", ({ id }) => {
  answered();
  if (state.selected !== id) select(id);
});
on("got:error", ({ frame }) => frame === undefined && answered());
on("online", () => {
  pointer.waiting = [];
  loading = false;
  answered();
});

function explain() {
  if (!state.clip || !pointer.place) return;
  const name = state.selected === null ? "" : nameOf(state.selected), here = idAt(pointer.place);
  const texts = {
    click: state.selected !== null
      ? `${name}: click adds, right click takes away, drag draws a box · N: new object`
      : here ? `Click selects ${nameOf(here)}` : "Click on an object, or drag a box around it",
    brush: state.selected !== null ? `Paint adds to ${name}` : "Paint a new object",
    eraser: state.selected !== null ? `Erase from ${name}` : "Select an object to erase from",
    hand: "Drag moves the picture, the wheel zooms",
  };
  hint.textContent = texts[state.tool];
}

on("tool", () => {
  canvas.style.cursor = { click: "crosshair", hand: "grab" }[state.tool] ?? "none";
  for (const button of document.querySelectorAll("[data-tool]")) button.classList.toggle("active", button.dataset.tool === state.tool);
  explain();
});
on("objects", explain);
