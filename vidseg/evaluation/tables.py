"""Plain text tables, json files and images of curves: how the evaluation commands show their results.

Names of classes and files come from outside: tables print them without control characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.names import printable

_SIZE = (800, 560)
_PLOT = (70, 50, 770, 490)  # left, top, right, bottom of the axes
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need: numbers to the right and with 4 decimals, text to the left, "-" for None."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    right = [all(row[k] is None or isinstance(row[k], (int, float)) for row in rows) for k in range(len(header))]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    padded = ([c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)] for row in cells)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def text_pairs(title: str, values: Mapping[str, object]) -> str:
    """A title, then one line per name and value; what is empty is left out."""
    shown = {name: value for name, value in values.items() if value is not None and value != []}
    width = max(map(len, shown))
    texts = {name: "; ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in shown.items()}
    return "\n".join([title, *(f"  {name:<{width}}  {printable(text)}" for name, text in texts.items())])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def json_text(content: Mapping[str, object]) -> str:
    """``content`` as json."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write ``content`` as json, making the folder if needed.

    Raises:
        OutputError: the file cannot be written.
    """
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.write(json_text(content).encode())


def draw_curves(
    path: Path,
    title: str,
    axes: tuple[str, str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    ticks: Mapping[float, str] | None = None,
) -> None:
    """Draw ``curves`` (name to points in 0..1 x 0..1) into a PNG image.

    ``ticks``: what stands below the places of the first axis; None: numbers.

    Raises:
        OutputError: the file cannot be written.
    """
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = _PLOT
    numbers = {step / 10: f"{step / 10:.1f}" for step in range(11)}
    for place, text in (ticks or numbers).items():
        x = left + (right - left) * place
        draw.line((x, top, x, bottom), fill="#dddddd")
        draw.text((x, bottom + 6), text, fill="black", anchor="ma")
    for place, text in numbers.items():
        y = bottom - (bottom - top) * place
        draw.line((left, y, right, y), fill="#dddddd")
        draw.text((left - 6, y), text, fill="black", anchor="rm")
    draw.rectangle(_PLOT, outline="black")
    draw.text(((left + right) / 2, top / 2), title, fill="black", anchor="mm")
    draw.text(((left + right) / 2, bottom + 36), axes[0], fill="black", anchor="mm")
    draw.text((left, top - 8), axes[1], fill="black", anchor="ls")
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = [(left + (right - left) * x, bottom - (bottom - top) * y) for x, y in points]
        draw.line(line, fill=colour, width=3)
        draw.text((left + 12, top + 14 + 18 * number), name, fill=colour, anchor="lm")
    make_folder(path.parent)
    with atomic_file(path) as file:
        image.save(file, "PNG")
