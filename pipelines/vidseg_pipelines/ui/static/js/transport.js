// Playing, stepping, running, and the next frame to look at.

import { send } from "./connection.js";
import { toast } from "./dialogs.js";
import { pictureNow, prefetch } from "./frames.js";
import { icon } from "./icons.js";
import { showHints } from "./timeline.js";
import { emit, goTo, on, state } from "./state.js";

const by = (id) => document.getElementById(id);
let hints = [];
let idle = 0;
let following = true; // the picture goes with a run until the user looks elsewhere
let expected = -1;

export function play() {
  state.playing = !state.playing && Boolean(state.clip);
  if (state.playing && state.frame === state.clip.frames - 1) goTo(0);
  by("play").querySelector("i").innerHTML = icon(state.playing ? "pause" : "play");
  if (state.playing) requestAnimationFrame(tick);
}

let next = 0;
function tick(now) {
  if (!state.playing || !state.clip) return;
  if (state.frame >= state.clip.frames - 1) return play();
  prefetch(state.frame, 8);
  if (now >= next && pictureNow(state.frame + 1)) {
    next = Math.max(now, next + 1000 / state.clip.fps);
    goTo(state.frame + 1);
  }
  requestAnimationFrame(tick);
}

export function step(count) {
  if (state.playing) play();
  goTo(state.frame + count);
}

export function run(direction) {
  if (state.playing) play();
  const only = by("only").checked ? state.selected : null;
  following = true;
  if (by("only").checked && only === null) return toast("Select an object to run it alone.");
  send({ do: "run", frame: state.frame, direction, only });
}

export function pause() {
  if (state.run) send({ do: "pause" });
}

export function cancel() {
  if (state.run) send({ do: "cancel" });
}

export function nextHint() {
  send({ do: "hints", seen: state.frame });
}

on("got:hints", (message) => {
  hints = message.hints;
  showHints(hints.map((h) => h.frame));
  if (!hints.length) {
    by("why").textContent = "";
    return toast("Nothing stands out. Run first, or look anywhere.");
  }
  const { frame, id, why } = hints[0];
  state.selected = id;
  goTo(frame);
  emit("objects");
  by("why").textContent = why;
  toast(`Frame ${frame}: ${why}.`);
});

function showRun(message) {
  const over = !message || ["done", "cancelled", "failed"].includes(message.state);
  const had = state.run;
  state.run = over ? null : message;
  by("running").hidden = over;
  for (const id of ["run-backward", "run-both", "run-forward"]) by(id).disabled = Boolean(state.run && state.run.state === "running");
  if (!over) {
    by("progress").max = message.total;
    by("progress").value = message.done;
    by("progress-text").textContent = `${message.done} / ${message.total}`;
    by("pause").textContent = message.state === "paused" ? "Go on" : "Pause";
    if (message.state === "running" && message.done && following) goTo((expected = message.frame));
    return;
  }
  if (!message || !had) return;
  if (message.done && following) goTo(message.frame);
  if (message.state === "failed") toast(`The run ended early: ${message.text}. ${message.done} frames were kept.`, "error");
  else if (message.skipped) toast(`${message.skipped} frames could not be read and were left out.`, "error");
  else if (message.state === "done") toast(`Done: ${message.done} frames.`);
  for (const text of message.warnings ?? []) toast(text, "error");
}

on("got:run", showRun);
on("got:clip", (message) => showRun(message.run));

on("frame", () => {
  if (state.run && state.frame !== expected) following = false;
  by("frame").value = state.frame;
  by("time").textContent = clock(state.frame / state.clip.fps);
  clearTimeout(idle);
  if (!state.playing) idle = setTimeout(() => send({ do: "look", frame: state.frame }), 120);
  by("why").textContent = hints.find((h) => h.frame === state.frame)?.why ?? "";
});

function clock(seconds) {
  const minutes = Math.floor(seconds / 60), rest = (seconds % 60).toFixed(2).padStart(5, "0");
  return `${minutes}:${rest}`;
}

by("play").addEventListener("click", play);
by("first").addEventListener("click", () => step(-1e9));
by("last").addEventListener("click", () => step(1e9));
by("back").addEventListener("click", () => step(-1));
by("forth").addEventListener("click", () => step(1));
by("frame").addEventListener("change", () => {
  const typed = Number.parseInt(by("frame").value, 10);
  if (!Number.isNaN(typed)) goTo(typed);
  by("frame").value = state.frame;
});
by("frame").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Enter") by("frame").blur();
});
by("run-forward").addEventListener("click", () => run("forward"));
by("run-backward").addEventListener("click", () => run("backward"));
by("run-both").addEventListener("click", () => run("both"));
by("pause").addEventListener("click", pause);
by("cancel").addEventListener("click", cancel);
by("hint-next").addEventListener("click", nextHint);
