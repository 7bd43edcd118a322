// A row per object: where it is present, how far that can be trusted, where it was drawn by hand.
// Only the rows and frames in sight are drawn, whatever the length of the video and the number of objects.

import { goTo, nameOf, on, select, state } from "./state.js";

const box = document.getElementById("timeline");
const canvas = box.querySelector("canvas");
const spacer = box.querySelector(".spacer-y");
const context = canvas.getContext("2d");

const RULER = 24, ROW = 22, NAMES = 150, RIGHT = 16;
const view = { from: 0, to: 1 }; // frames in sight
let hintFrames = [];
let scheduled = false;

export function refreshTimeline() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

export function showHints(frames) {
  hintFrames = frames;
  refreshTimeline();
}

export function showAll() {
  view.from = 0;
  view.to = Math.max(1, state.clip.frames);
  refreshTimeline();
}

function width() {
  return canvas.clientWidth - NAMES - RIGHT;
}

function xOf(frame) {
  return NAMES + ((frame - view.from) / (view.to - view.from)) * width();
}

function frameAt(x) {
  return view.from + ((x - NAMES) / width()) * (view.to - view.from);
}

function spacerHeight() {
  return `${Math.max(0, RULER + state.objects.length * ROW + 4 - canvas.clientHeight)}px`;
}

function draw() {
  spacer.style.height = spacerHeight();
  const ratio = window.devicePixelRatio || 1, high = canvas.clientHeight;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(high * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!state.clip) return;
  const top = box.scrollTop;
  const first = Math.floor(top / ROW), last = Math.min(state.objects.length, Math.ceil((top + high - RULER) / ROW));
  for (let row = first; row < last; row++) drawRow(state.objects[row], RULER + row * ROW - top);
  drawRuler(high);
}

function drawRuler(high) {
  context.fillStyle = "#17191b";
  context.fillRect(0, 0, canvas.clientWidth, RULER);
  const wide = (view.to - view.from) / width();
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000].find((n) => n / wide > 60) ?? 100000;
  context.font = "11px system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.strokeStyle = "#303338";
  for (let frame = Math.ceil(view.from / step) * step; frame < view.to; frame += step) {
    const x = Math.round(middle(frame)) + 0.5;
    context.fillStyle = "#8b929a";
    context.fillText(frame, x, 9);
    context.beginPath();
    context.moveTo(x, 17);
    context.lineTo(x, RULER);
    context.stroke();
  }
  context.textAlign = "left";
  columns((x, from, to) => {
    let some = false;
    for (let f = from; f < to && !some; f++) some = state.computed[f] === 1;
    if (some) context.fillRect(x, RULER - 3, 1, 2);
  }, () => (context.fillStyle = "#5b626b"));
  context.fillStyle = "#f0b429";
  for (const frame of hintFrames) {
    const x = middle(frame);
    if (x < NAMES) continue;
    context.beginPath();
    context.moveTo(x - 4, 15);
    context.lineTo(x + 4, 15);
    context.lineTo(x, 21);
    context.fill();
  }
  const x = middle(state.frame);
  if (x >= NAMES - 1 && x <= canvas.clientWidth) {
    context.fillStyle = "#fff";
    context.fillRect(Math.round(x) - 0.5, 4, 1.5, high);
    context.beginPath();
    context.roundRect(x - 5, 1, 10, 7, 2);
    context.fill();
  }
}

function middle(frame) {
  return (xOf(frame) + xOf(frame + 1)) / 2;
}

// For every column of pixels, the frames [from, to) under it.
function columns(each, before) {
  before();
  for (let x = NAMES; x < NAMES + width(); x++) {
    const from = Math.floor(frameAt(x)), to = Math.max(from + 1, Math.floor(frameAt(x + 1)));
    if (from >= state.clip.frames) return;
    each(x, Math.max(0, from), Math.min(to, state.clip.frames));
  }
}

function drawRow(item, y) {
  if (item.id === state.selected) {
    context.fillStyle = "#243142";
    context.fillRect(0, y, canvas.clientWidth, ROW);
  }
  context.fillStyle = item.color;
  context.beginPath();
  context.roundRect(12, y + 6, 10, 10, 3);
  context.fill();
  context.fillStyle = "#d3d6da";
  context.font = "12px system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  context.save();
  context.beginPath();
  context.rect(0, y, NAMES - 10, ROW);
  context.clip();
  context.fillText(nameOf(item.id), 29, y + ROW / 2 + 0.5);
  context.restore();
  context.fillStyle = "#212428";
  context.fillRect(NAMES, y + 5, width(), 12);
  const marks = state.marks.get(item.id);
  if (!marks) return;
  const drawn = [];
  columns((x, from, to) => {
    let worst = 256;
    for (let f = from; f < to; f++) {
      const mark = marks[f];
      if (mark === 255 && drawn[drawn.length - 1] !== f) drawn.push(f);
      if (mark && mark < worst) worst = mark;
    }
    if (worst === 256) return;
    const trust = worst / 255;
    context.globalAlpha = 0.3 + 0.6 * trust;
    context.fillStyle = item.color;
    context.fillRect(x, y + 5, 1.05, 12);
    if (trust < 0.8) {
      context.globalAlpha = 1;
      context.fillStyle = trust < 0.55 ? "#f2504b" : "#f0b429";
      context.fillRect(x, y + 14, 1.05, 3);
    }
  }, () => {});
  context.globalAlpha = 1;
  for (const frame of drawn) {
    const x = middle(frame);
    context.fillStyle = "#fff";
    context.strokeStyle = "#131416";
    context.beginPath();
    context.moveTo(x, y + 5);
    context.lineTo(x + 5, y + 11);
    context.lineTo(x, y + 17);
    context.lineTo(x - 5, y + 11);
    context.closePath();
    context.fill();
    context.stroke();
  }
}

function pick(event) {
  const area = canvas.getBoundingClientRect();
  goTo(Math.min(state.clip.frames - 1, Math.max(0, Math.floor(frameAt(event.clientX - area.left)))));
}

canvas.addEventListener("pointerdown", (event) => {
  if (!state.clip) return;
  const area = canvas.getBoundingClientRect(), y = event.clientY - area.top;
  const item = state.objects[Math.floor((y - RULER + box.scrollTop) / ROW)];
  if (y > RULER && item) select(item.id);
  if (event.clientX - area.left < NAMES) return;
  canvas.setPointerCapture(event.pointerId);
  pick(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (state.clip && event.buttons === 1 && canvas.hasPointerCapture(event.pointerId)) pick(event);
});
canvas.addEventListener("wheel", (event) => {
  if (!state.clip || !(event.ctrlKey || event.shiftKey)) return; // plain: scrolls the rows
  event.preventDefault();
  const length = view.to - view.from, delta = event.deltaY || event.deltaX;
  if (event.ctrlKey) {
    const at = frameAt(event.clientX - canvas.getBoundingClientRect().left);
    const now = Math.max(10, Math.min(state.clip.frames, length * Math.exp(delta * 0.002)));
    view.from = at - ((at - view.from) / length) * now;
    view.to = view.from + now;
  } else {
    view.from += (delta / 1000) * length;
    view.to = view.from + length;
  }
  const shift = Math.max(0, -view.from) - Math.max(0, view.to - Math.max(10, state.clip.frames));
  view.from += shift;
  view.to += shift;
  refreshTimeline();
}, { passive: false });

function follow() {
  if (state.frame < view.from || state.frame >= view.to) {
    const length = view.to - view.from;
    view.from = Math.max(0, Math.min(state.clip.frames - length, state.frame - length / 2));
    view.to = view.from + length;
  }
  refreshTimeline();
}

// The row of an object that was just selected comes into sight.
let selected = null;
function reveal() {
  const row = state.objects.findIndex((item) => item.id === state.selected);
  if (state.selected !== selected && row >= 0) {
    spacer.style.height = spacerHeight();
    const most = row * ROW, least = most + ROW - (canvas.clientHeight - RULER);
    box.scrollTop = Math.max(least, Math.min(most, box.scrollTop));
  }
  selected = state.selected;
  refreshTimeline();
}

on("frame", follow);
on("objects", reveal);
on("got:changed", refreshTimeline);
box.addEventListener("scroll", refreshTimeline);
new ResizeObserver(refreshTimeline).observe(box);
