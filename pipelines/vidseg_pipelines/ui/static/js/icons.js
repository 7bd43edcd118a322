// Icons as strokes on a grid of 24, drawn into every <i data-icon="name">.

const PATHS = {
  down: "M6 9l6 6 6-6", undo: "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3", redo: "M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14", upload: "M12 20V9M7 13l5-5 5 5M5 4h14",
  help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17.5v.5M12 2.5a9.5 9.5 0 1 1 0 19a9.5 9.5 0 0 1 0-19",
  cursor: "M5 3l14 8-6 2-2 6z", brush: "M14 4l6 6-8 8-6-6zM6 12l-2 8 8-2", eraser: "M8 20l-5-5L14 4l6 6-10 10zM8 20h12M9 9l6 6",
  hand: "M12 3v18M3 12h18M12 3l-3 3M12 3l3 3M12 21l-3-3M12 21l3-3M3 12l3-3M3 12l3 3M21 12l-3-3M21 12l-3 3",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5", eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12M12 9a3 3 0 1 1 0 6a3 3 0 0 1 0-6",
  plus: "M12 5v14M5 12h14", trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13", first: "M6 5v14M18 5l-9 7 9 7z", last: "M18 5v14M6 5l9 7-9 7z",
  back: "M16 5l-9 7 9 7z", forth: "M8 5l9 7-9 7z", play: "M7 4l13 8-13 8z", pause: "M8 5v14M16 5v14",
  left: "M20 12H5M11 6l-6 6 6 6", right: "M4 12h15M13 6l6 6-6 6", both: "M3 12h18M8 7l-5 5 5 5M16 7l5 5-5 5",
  look: "M10.5 4a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13M15.5 15.5L21 21",
};

export function icon(name) {
  return `<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"><path d="${PATHS[name]}"/></svg>`;
}

export function drawIcons(root = document) {
  for (const element of root.querySelectorAll("i[data-icon]")) element.innerHTML = icon(element.dataset.icon);
}
