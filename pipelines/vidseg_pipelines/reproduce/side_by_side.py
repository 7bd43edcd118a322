"""Sheets of SAM and HQ-SAM side by side, with the boxes they were prompted with (figures 1, 6, 7 and 9 to 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vidseg.errors import InputError, UsageError
from vidseg.files import IMAGE_SUFFIXES, data_files
from vidseg.masks.boxes import mask_box
from vidseg.outputs.overlay import Drawing, draw_objects
from vidseg.outputs.style import OverlayStyle
from vidseg.sam.attention import heat_over, token_attention
from vidseg.sam.model import SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Array, VideoInfo
from vidseg.video.images import image_size, read_image
from vidseg_pipelines.reproduce.object_prompts import Floats
from vidseg_trackers.boxes.files import read_boxes
from vidseg_trackers.boxes.frames import fit_to_video
from vidseg_trackers.detections import SHARES, Detection

_CELL = 320
_COLUMNS = 6


def boxes_of_images(images: Path, boxes: Path, limit: int = 0) -> list[tuple[Path, Floats]]:
    """The images of a folder that ``boxes`` has boxes (N, 4) for, in any form of docs/boxes.md.

    Raises:
        InputError: no images, boxes that cannot be read or belong to none of the images.
    """
    if not images.is_dir():
        raise InputError(f"{images}: no such folder of images")
    files = data_files(images, IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{images}: no images (looked for {', '.join(IMAGE_SUFFIXES)})")
    sizes = [image_size(path) for path in files]
    width, height = (max(size[k] for size in sizes) for k in (0, 1))
    found = read_boxes(boxes)
    plain = [d if d.size == SHARES else replace(d, size=None) for d in found.detections]
    names = tuple(path.name for path in files)
    video = VideoInfo(width, height, Fraction(1), len(files), True, name=images.name, frame_names=names)
    frames = fit_to_video(replace(found, detections=plain), video, None).frames
    chosen = [(files[i], sizes[i], frames[i]) for i in sorted(frames)][: limit or None]
    if not chosen:
        raise InputError(f"{boxes}: no boxes on the images of {images}")
    return [(path, _clipped(rows, size, (width, height))) for path, size, rows in chosen]


def _clipped(rows: Sequence[Detection], size: tuple[int, int], largest: tuple[int, int]) -> Floats:
    """Boxes in the pixels of their image: shares of it were taken as shares of the largest one."""
    scale = [(size[k] / largest[k]) for k in (0, 1)] * 2
    found = [np.array(d.box) * (scale if d.size == SHARES else 1.0) for d in rows]
    return np.clip(np.stack(found), 0, [*size, *size]).astype(np.float32)


def draw_side_by_side(sam: SegmentAnything, pictures: Sequence[tuple[Path, Floats]]) -> Image.Image:
    """Every image twice: SAM's masks above, the HQ masks below (of a plain SAM, its masks alone)."""
    outputs = ["sam", sam.config.output] if sam.config.hq else ["sam"]
    columns = []
    for path, boxes in pictures:
        rgb = read_image(path)
        features = sam.encode([rgb])
        cells = []
        for output in outputs:
            (masks,) = sam.decode(features, [PromptBatch(boxes=boxes)], output)  # type: ignore[arg-type]
            drawings = [_drawing(m, k) for k, m in enumerate((masks.upsampled()[:, 0] > 0).cpu().numpy(), 1)]
            cells.append(_cell(draw_objects(rgb, drawings, OverlayStyle(labels=False)), boxes))
        columns.append(cells)
    return _sheet(columns, ["SAM", "HQ-SAM"][: len(outputs)])


def draw_attention(sam: SegmentAnything, pictures: Sequence[tuple[Path, Floats]]) -> Image.Image:
    """Every image with its first box, what the output token attends to, and what the HQ token does."""
    columns = []
    for path, boxes in pictures:
        rgb = read_image(path)
        (features,) = sam.encode([rgb])
        maps = token_attention(sam, features, PromptBatch(boxes=boxes[:1]))
        columns.append([_cell(rgb, boxes[:1]), *(_cell(heat_over(rgb, m), boxes[:1]) for m in maps[0].cpu().numpy())])
    return _sheet(columns, ["image", "output token", "HQ token"][: len(columns[0])])


def _drawing(mask: Array, number: int) -> Drawing:
    x1, y1, x2, y2 = (int(v) for v in mask_box(mask))
    return Drawing(number, mask[y1:y2, x1:x2], y1, x1, 1.0)


def _cell(rgb: Array, boxes: Floats) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    scale = _CELL / picture.width
    small = picture.resize((_CELL, max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(small)
    for box in boxes:
        draw.rectangle([float(v) * scale for v in box], outline="red", width=2)
    return small


def _sheet(columns: Sequence[Sequence[Image.Image]], names: Sequence[str]) -> Image.Image:
    """Columns in blocks of six, a line per name, which stands at its left."""
    margin, blocks = 90, [columns[i : i + _COLUMNS] for i in range(0, len(columns), _COLUMNS)]
    heights = [max(column[0].height for column in block) + 4 for block in blocks]
    width = margin + (_CELL + 4) * max(len(block) for block in blocks)
    sheet = Image.new("RGB", (width, sum(heights) * len(names)), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for block, height in zip(blocks, heights, strict=True):
        for line, name in enumerate(names):
            draw.text((8, y + height / 2), name, fill="black", anchor="lm")
            for place, column in enumerate(block):
                sheet.paste(column[line], (margin + place * (_CELL + 4), y))
            y += height
    return sheet


def need_images(name: str, images: Path | None, boxes: Path | None) -> tuple[Path, Path]:
    """Both folders.

    Raises:
        UsageError: one was not given.
    """
    if images is None or boxes is None:
        raise UsageError(f"{name}: which images, with which boxes? vidseg reproduce {name} --images DIR --boxes FILE")
    return images, boxes
