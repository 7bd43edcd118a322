// Pictures and masks of frames, fetched when needed and kept within bounds.

import { clipUrl } from "./connection.js";
import { emit, on, state } from "./state.js";

const PICTURE_BYTES = 160e6; // of decoded pictures
const MASK_FRAMES = 300;

const pictures = new Map(); // frame -> ImageBitmap or a promise of it
const masks = new Map(); // frame -> objects or a promise of them

export function forget() {
  for (const picture of pictures.values()) picture.close?.();
  pictures.clear();
  masks.clear();
}

export function forgetMasks(frames) {
  for (const frame of frames) masks.delete(frame);
}

export function pictureNow(frame) {
  const found = pictures.get(frame);
  return found instanceof ImageBitmap ? found : null;
}

export function masksNow(frame) {
  const found = masks.get(frame);
  return Array.isArray(found) ? found : null;
}

export function fetchPicture(frame) {
  const key = state.clip.key;
  if (pictures.has(frame)) return pictures.get(frame);
  const coming = fetch(clipUrl(key, `frames/${frame}.jpg?of=${state.clip.frames}`)).then(async (answer) => {
    if (!answer.ok) throw new Error((await answer.json()).error);
    const picture = await createImageBitmap(await answer.blob());
    if (state.clip?.key !== key) return picture.close();
    pictures.set(frame, picture);
    trim();
    emit("arrived", frame);
    return picture;
  }).catch((error) => {
    pictures.delete(frame);
    if (state.frame === frame && state.clip?.key === key) emit("got:error", { text: error.message, frame });
  });
  pictures.set(frame, coming);
  return coming;
}

export function fetchMasks(frame) {
  const key = state.clip.key;
  if (masks.has(frame)) return masks.get(frame);
  if (!state.computed[frame]) return [];
  const coming = fetch(clipUrl(key, `frames/${frame}.json`)).then((answer) => answer.json()).then(({ objects }) => {
    if (state.clip?.key !== key || masks.get(frame) !== coming) return;
    masks.set(frame, objects);
    while (masks.size > MASK_FRAMES) masks.delete(masks.keys().next().value);
    emit("arrived", frame);
  }).catch(() => masks.delete(frame));
  masks.set(frame, coming);
  return coming;
}

export function prefetch(frame, count) {
  for (let n = 1; n <= count && frame + n < state.clip.frames; n++) {
    fetchPicture(frame + n);
    if (state.masks) fetchMasks(frame + n);
  }
}

function trim() {
  const limit = Math.max(8, Math.floor(PICTURE_BYTES / (state.clip.width * state.clip.height * 4)));
  for (const [frame, picture] of pictures) {
    if (pictures.size <= limit) return;
    if (frame === state.frame || !(picture instanceof ImageBitmap)) continue;
    picture.close();
    pictures.delete(frame);
  }
}

on("got:changed", ({ frames }) => forgetMasks(frames));
