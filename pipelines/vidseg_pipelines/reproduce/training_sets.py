"""What HQSeg-44K holds, counted (table 14) and drawn (figure 8)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vidseg.datasets.layouts import HQSEG_TRAIN
from vidseg.datasets.pairs import Item, Mask, find_pairs, load
from vidseg.errors import InputError
from vidseg.masks.boxes import mask_box
from vidseg.outputs.overlay import Drawing, draw_objects
from vidseg.outputs.style import OverlayStyle
from vidseg.types import Array

PRINTED = {"dis5k": 3000, "thinobject": 4748, "fss": 10000, "duts": 15572, "ecssd": 1000, "msra": 10000}
"""Images of each set as the paper prints them (table 14); DUTS are two folders."""


@dataclass(frozen=True)
class SetCount:
    """Images of a set that have a mask, or why it cannot be counted."""

    name: str
    paper: int
    ours: int | None
    missing: str = ""


def find_set(root: Path, name: str) -> list[Item]:
    """The images with masks of a set of table 14.

    Raises:
        InputError: a folder is missing or empty.
    """
    folders = [key for key in HQSEG_TRAIN if key.partition("-")[0] == name]
    return [
        item
        for key in folders
        for item in find_pairs(root / HQSEG_TRAIN[key][0], root / HQSEG_TRAIN[key][1], source=key)
    ]


def count_sets(root: Path) -> list[SetCount]:
    """Every set of table 14 below ``root``, and all of them together."""
    rows = []
    for name, paper in PRINTED.items():
        try:
            rows.append(SetCount(name, paper, len(find_set(root, name))))
        except InputError as error:
            rows.append(SetCount(name, paper, None, str(error)))
    counted = [row.ours for row in rows if row.ours is not None]
    missing = "" if len(counted) == len(rows) else f"{len(rows) - len(counted)} sets"
    return [*rows, SetCount("total", sum(PRINTED.values()), sum(counted) if counted else None, missing)]


def draw_sets(root: Path, each: int, seed: int, height: int = 160) -> Image.Image:
    """A sheet with a line per set that is there: images drawn at random, each with its mask over it.

    Raises:
        InputError: no set is there, or an image cannot be read.
    """
    lines = []
    for name in PRINTED:
        try:
            items = find_set(root, name)
        except InputError:
            continue
        chosen = np.random.default_rng(seed).permutation(len(items))[:each]
        lines.append(np.concatenate([_cell(items[i], height) for i in sorted(chosen)], axis=1))
    if not lines:
        raise InputError(
            f"{root}: none of the sets of HQSeg-44K is there: {', '.join(v[0] for v in HQSEG_TRAIN.values())}"
        )
    width = max(line.shape[1] for line in lines)
    sheet = [np.pad(line, ((0, 4), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    return Image.fromarray(np.concatenate(sheet))


def _cell(item: Item, height: int) -> Array:
    sample = load(item, 640)
    drawn = draw_objects(sample.image, [_drawing(mask, k) for k, mask in enumerate(sample.masks, 1)], OverlayStyle())
    picture = Image.fromarray(drawn)
    cell = np.array(picture.resize((max(1, round(picture.width * height / picture.height)), height)))
    return np.pad(cell, ((0, 0), (0, 4), (0, 0)), constant_values=255)


def _drawing(mask: Mask, number: int) -> Drawing:
    inside = mask > 128
    x1, y1, x2, y2 = (int(v) for v in mask_box(inside))
    return Drawing(number, inside[y1:y2, x1:x2], y1, x1, 1.0)
