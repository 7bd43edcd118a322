// What the page knows, in one place. Modules change it through functions here and listen to what concerns them.

const listeners = new Map();

export const state = {
  clip: null, // {key, frames, width, height, fps, mine}
  frame: 0,
  objects: [], // {id, name, color}
  keys: {}, // frame -> id -> what the user drew there
  marks: new Map(), // id -> Uint8Array over frames: 0 absent, 1..254 trust, 255 drawn
  computed: new Uint8Array(0), // frames with a result
  selected: null,
  hidden: new Set(),
  tool: "click",
  masks: true,
  look: { opacity: 0.35, contour: true, dim: false, labels: true, radius: 16 },
  run: null, // {state, done, total, frame}
  playing: false,
};

export function on(name, call) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(call);
}

export function emit(name, detail) {
  for (const call of listeners.get(name) ?? []) call(detail);
}

export function goTo(frame) {
  if (!state.clip) return;
  const place = Math.max(0, Math.min(state.clip.frames - 1, Math.round(frame)));
  if (place === state.frame) return;
  state.frame = place;
  emit("frame");
}

export function select(id) {
  state.selected = id;
  emit("objects");
}

export function setTool(tool) {
  state.tool = tool;
  emit("tool");
}

export function objectOf(id) {
  return state.objects.find((item) => item.id === id);
}

export function nameOf(id) {
  return objectOf(id)?.name || `Object ${id}`;
}

export function setMarks(marks) {
  for (const [frame, row] of Object.entries(marks)) {
    for (const values of state.marks.values()) values[frame] = 0;
    state.computed[frame] = row ? 1 : 0;
    for (const [id, mark] of Object.entries(row)) {
      if (!state.marks.has(+id)) state.marks.set(+id, new Uint8Array(state.clip.frames));
      state.marks.get(+id)[frame] = mark;
    }
  }
}
