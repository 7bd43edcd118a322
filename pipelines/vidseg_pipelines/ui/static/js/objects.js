// The list of objects: names, colours, who is selected, who is hidden.

import { send } from "./connection.js";
import { icon } from "./icons.js";
import { masksNow } from "./frames.js";
import { emit, nameOf, objectOf, on, select, state } from "./state.js";

const list = document.getElementById("objects");
const rows = new Map(); // id -> li

export function startNew() {
  select(null);
}

export function rename(id) {
  const name = rows.get(id)?.querySelector(".name");
  if (!name) return;
  name.readOnly = false;
  name.focus();
  name.select();
}

export function toggleHidden(id) {
  if (!state.hidden.delete(id)) state.hidden.add(id);
  emit("objects");
}

export function removeObject(id) {
  send({ do: "remove", id });
  if (state.selected === id) select(null);
}

// Shown at once, whatever the server is computing.
function change(id, what, field, value) {
  if (state.clip.mine && objectOf(id)) objectOf(id)[field] = value;
  send({ do: what, id, [field]: value });
  emit("objects");
}

function build(item) {
  const row = document.createElement("li");
  row.dataset.id = item.id;
  row.innerHTML = `<span class="number"></span><input class="swatch" type="color" title="Colour"><input class="name" spellcheck="false" maxlength="80" title="Double click or Enter: name it" readonly tabindex="-1"><button class="icon eye" title="Show or hide">${icon("eye")}</button><button class="icon bin" title="Remove from all frames (Shift Del)">${icon("trash")}</button>`;
  const [swatch, name] = row.querySelectorAll("input");
  row.addEventListener("click", () => select(item.id));
  row.addEventListener("dblclick", () => rename(item.id));
  name.addEventListener("mousedown", (event) => name.readOnly && event.preventDefault()); // a click selects the row
  name.addEventListener("blur", () => (name.readOnly = true));
  swatch.addEventListener("click", (event) => event.stopPropagation());
  swatch.addEventListener("change", () => change(item.id, "recolor", "color", swatch.value));
  name.addEventListener("change", () => change(item.id, "rename", "name", name.value));
  name.addEventListener("keydown", (event) => {
    if (event.key === "Escape") name.value = objectOf(item.id)?.name ?? "";
    if (event.key === "Enter" || event.key === "Escape") name.blur();
    event.stopPropagation();
  });
  row.querySelector(".eye").addEventListener("click", (event) => (event.stopPropagation(), toggleHidden(item.id)));
  row.querySelector(".bin").addEventListener("click", (event) => (event.stopPropagation(), removeObject(item.id)));
  rows.set(item.id, row);
  return row;
}

function refresh() {
  const wanted = new Set(state.objects.map((item) => item.id));
  for (const [id, row] of rows) {
    if (wanted.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  const here = new Set((state.clip && masksNow(state.frame) ? masksNow(state.frame) : []).map((o) => o.id));
  state.objects.forEach((item, place) => {
    const row = rows.get(item.id) ?? build(item);
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
    const [swatch, name] = row.querySelectorAll("input");
    row.querySelector(".number").textContent = item.id;
    swatch.value = item.color;
    if (document.activeElement !== name) name.value = item.name;
    name.placeholder = nameOf(item.id);
    row.classList.toggle("selected", item.id === state.selected);
    row.classList.toggle("hidden", state.hidden.has(item.id));
    row.classList.toggle("absent", !here.has(item.id));
    if (item.id === state.selected && row.dataset.shown !== "1") row.scrollIntoView({ block: "nearest" });
    row.dataset.shown = item.id === state.selected ? "1" : "";
  });
  document.getElementById("no-objects").hidden = state.objects.length > 0;
  document.getElementById("new").classList.toggle("primary", state.selected === null && state.objects.length > 0);
}

let scheduled = false;
function later() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    refresh();
  });
}
for (const name of ["objects", "frame", "arrived", "got:changed"]) on(name, later);
document.getElementById("new").addEventListener("click", startNew);
