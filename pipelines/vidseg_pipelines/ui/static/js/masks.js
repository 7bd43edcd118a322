// Run-lengths of masks to a map of ids, and from there to a picture.

// COCO's compressed run-lengths: five bits per character, counts from the third on as differences to two before.
export function runs(text) {
  const counts = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

export function labelMap(objects, width, height) {
  const labels = new Uint16Array(width * height);
  for (const { id, rle } of objects) {
    let place = 0, inside = false;
    for (const count of runs(rle.counts)) {
      if (inside) fillRun(labels, place, count, id, width, height);
      place += count;
      inside = !inside;
    }
  }
  return labels;
}

function fillRun(labels, place, count, id, width, height) {
  let x = Math.floor(place / height), y = place % height; // column by column
  while (count > 0) {
    const end = Math.min(height, y + count);
    for (let at = y * width + x, row = y; row < end; row++, at += width) labels[at] = id;
    count -= end - y;
    y = 0;
    x++;
  }
}

// Colours as 0xbbggrr by id. A contour is drawn where a neighbour at distance `line` is something else.
export function paint(labels, width, height, colors, { opacity, contour, dim, selected, hidden, line }) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const fill = Math.round(255 * opacity), strong = Math.min(255, Math.round(fill * 1.2));
  const shade = dim ? 150 << 24 : 0;
  for (let y = 0, at = 0; y < height; y++) {
    const up = y >= line ? -line * width : 0, down = y + line < height ? line * width : 0;
    for (let x = 0; x < width; x++, at++) {
      const id = labels[at];
      if (!id || hidden.has(id)) {
        pixels[at] = shade;
        continue;
      }
      const edge = contour && (labels[at + up] !== id || labels[at + down] !== id || labels[x >= line ? at - line : at] !== id || labels[x + line < width ? at + line : at] !== id);
      const alpha = edge ? 255 : id === selected ? strong : fill;
      pixels[at] = ((alpha << 24) | colors(id)) >>> 0;
    }
  }
  return image;
}

export function packed(color) {
  return (parseInt(color.slice(5, 7), 16) << 16) | (parseInt(color.slice(3, 5), 16) << 8) | parseInt(color.slice(1, 3), 16);
}
