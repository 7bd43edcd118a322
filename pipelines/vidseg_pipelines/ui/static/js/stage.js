// The picture with its masks: drawing, zooming, and the places where the user points.

import { fetchMasks, fetchPicture, masksNow, pictureNow } from "./frames.js";
import { labelMap, packed, paint } from "./masks.js";
import { nameOf, objectOf, on, state } from "./state.js";

const canvas = document.getElementById("canvas");
const banner = document.getElementById("banner");
const context = canvas.getContext("2d");
const overlay = document.createElement("canvas");
const view = { scale: 1, x: 0, y: 0, fitted: true };

const NOTHING = [];
let version = 0; // of the masks, for who watches the page
let labels = null; // ids of the pixels of the frame that is shown
let painted = ""; // what the overlay shows
let shown = { picture: null, frame: -1, objects: [] };
let scheduled = false;
export const pointer = { place: null, drag: null, stroke: null, waiting: [] };

export function refresh() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

export function fit() {
  view.fitted = true;
  refresh();
}

export function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.max(0.05, Math.min(40, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.fitted = false;
  refresh();
}

export function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  view.fitted = false;
  refresh();
}

export function scale() {
  return view.scale;
}

// A place of the video, in pixels, for one of the window.
export function placeAt(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left - view.x) / view.scale, y: (event.clientY - box.top - view.y) / view.scale };
}

export function idAt({ x, y }) {
  if (!labels || x < 0 || y < 0 || x >= state.clip.width || y >= state.clip.height) return 0;
  return labels[Math.floor(y) * state.clip.width + Math.floor(x)];
}

function draw() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  if (!state.clip) return;
  if (view.fitted) fitTo(width, height);
  fetchPicture(state.frame);
  fetchMasks(state.frame);
  const picture = pictureNow(state.frame);
  if (picture) shown.picture = picture;
  const objects = masksNow(state.frame) ?? (shown.frame === state.frame && state.computed[state.frame] ? shown.objects : NOTHING);
  if (!picture && shown.picture?.width === 0) shown.picture = null; // it was closed meanwhile
  context.save();
  context.translate(view.x, view.y);
  context.scale(view.scale, view.scale);
  context.imageSmoothingEnabled = view.scale < 3;
  if (shown.picture) context.drawImage(shown.picture, 0, 0, state.clip.width, state.clip.height);
  if (state.masks) {
    repaint(objects);
    context.drawImage(overlay, 0, 0);
  }
  context.restore();
  canvas.dataset.frame = picture ? state.frame : "";
  canvas.dataset.objects = objects.map((o) => o.id).join(",");
  drawPrompts();
  if (state.masks && state.look.labels) drawNames(objects);
  drawPointer();
}

function fitTo(width, height) {
  const margin = 16, top = banner.hidden ? 0 : banner.offsetTop + banner.offsetHeight;
  view.scale = Math.min((width - 2 * margin) / state.clip.width, (height - top - 2 * margin) / state.clip.height);
  view.x = (width - state.clip.width * view.scale) / 2;
  view.y = top + (height - top - state.clip.height * view.scale) / 2;
}

function repaint(objects) {
  const { width, height } = state.clip;
  const line = Math.max(1, Math.round(1.6 / view.scale));
  const now = JSON.stringify([state.clip.key, state.frame, state.look, state.selected, [...state.hidden], line, state.objects.map((o) => o.color)]);
  if (now === painted && objects === shown.objects) return;
  if (objects !== shown.objects || !labels || labels.length !== width * height) {
    labels = labelMap(objects, width, height);
    canvas.dataset.version = ++version;
  }
  shown.objects = objects;
  shown.frame = state.frame;
  painted = now;
  const colors = new Map(state.objects.map((item) => [item.id, packed(item.color)]));
  const color = (id) => colors.get(id) ?? 0xcccccc;
  overlay.width = width;
  overlay.height = height;
  const look = { ...state.look, selected: state.selected, hidden: state.hidden, line };
  overlay.getContext("2d").putImageData(paint(labels, width, height, color, look), 0, 0);
}

function toWindow(x, y) {
  return [x * view.scale + view.x, y * view.scale + view.y];
}

function drawNames(objects) {
  const taken = [];
  context.font = "600 12px system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  for (const { id, box } of objects) {
    if (state.hidden.has(id)) continue;
    const text = nameOf(id), wide = context.measureText(text).width + 27, high = 20;
    const [left, top] = toWindow(box[0], box[1]), [right, bottom] = toWindow(box[2], box[3]);
    const spots = [[left, top - high - 2], [right - wide, top - high - 2], [left, bottom + 2], [left + 2, top + 2], [(left + right - wide) / 2, (top + bottom - high) / 2]];
    const free = ([x, y]) => x >= 0 && y >= 0 && x + wide <= canvas.clientWidth && y + high <= canvas.clientHeight && taken.every(([a, b, w]) => x >= a + w || x + wide <= a || y >= b + high || y + high <= b);
    const spot = spots.find(free);
    if (!spot) continue; // rather none than one over another
    taken.push([...spot, wide]);
    context.fillStyle = id === state.selected ? "rgb(10 12 14 / .92)" : "rgb(10 12 14 / .72)";
    context.beginPath();
    context.roundRect(spot[0], spot[1], wide, high, 4);
    context.fill();
    context.fillStyle = objectOf(id)?.color ?? "#ccc";
    context.beginPath();
    context.roundRect(spot[0] + 6, spot[1] + 5, 10, 10, 3);
    context.fill();
    context.fillStyle = "#fff";
    context.fillText(text, spot[0] + 21, spot[1] + high / 2 + 0.5);
  }
}

// Clicks and boxes of the selected object on this frame, and those that are not answered yet.
function drawPrompts() {
  const said = state.keys[state.frame]?.[state.selected] ?? {};
  const points = [...(said.points ?? []), ...pointer.waiting.filter((w) => w.frame === state.frame && w.point).map((w) => w.point)];
  for (const [x, y, positive] of points) {
    const [cx, cy] = toWindow(x, y);
    context.beginPath();
    context.arc(cx, cy, 6, 0, 7);
    context.fillStyle = positive ? "#27c281" : "#f2504b";
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    context.moveTo(cx - 3, cy);
    context.lineTo(cx + 3, cy);
    if (positive) context.moveTo(cx, cy - 3), context.lineTo(cx, cy + 3);
    context.lineWidth = 1.6;
    context.stroke();
  }
  for (const box of said.boxes ?? []) drawBox(box, [6, 4]);
}

function drawBox([x1, y1, x2, y2], dashes) {
  const [a, b] = toWindow(Math.min(x1, x2), Math.min(y1, y2)), [c, d] = toWindow(Math.max(x1, x2), Math.max(y1, y2));
  context.setLineDash([]);
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / .55)";
  context.strokeRect(a, b, c - a, d - b);
  context.setLineDash(dashes);
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.strokeRect(a, b, c - a, d - b);
  context.setLineDash([]);
}

function drawPointer() {
  if (pointer.drag) drawBox(pointer.drag, []);
  const painting = state.tool === "brush" || state.tool === "eraser";
  if (pointer.stroke?.length) {
    context.strokeStyle = state.tool === "eraser" ? "rgb(255 255 255 / .55)" : (objectOf(state.selected)?.color ?? "#fff") + "aa";
    context.lineWidth = 2 * state.look.radius * view.scale;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    pointer.stroke.forEach(([x, y], n) => (n ? context.lineTo(...toWindow(x, y)) : context.moveTo(...toWindow(x, y))));
    if (pointer.stroke.length === 1) context.lineTo(...toWindow(...pointer.stroke[0]));
    context.stroke();
  }
  if (painting && pointer.place) {
    context.beginPath();
    context.arc(...toWindow(pointer.place.x, pointer.place.y), Math.max(2, state.look.radius * view.scale), 0, 7);
    context.lineWidth = 1.5;
    context.strokeStyle = "#fff";
    context.stroke();
  }
}

for (const name of ["frame", "objects", "look", "tool", "got:changed"]) on(name, refresh);
on("arrived", (frame) => frame === state.frame && refresh());
new ResizeObserver(refresh).observe(canvas);
