"""LabelMe: a json of shapes beside every labelled picture."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidseg.annotations.frames import FrameFinder, Picture
from vidseg.annotations.shapes import Mask, Shape, box_of, corners_of, drawn, ellipse, points_of
from vidseg.errors import InputError
from vidseg.files import data_files
from vidseg.text import read_text


def read_labelme(path: Path, frames: FrameFinder) -> Iterator[Shape]:
    """Shapes of a folder of LabelMe's files, or of one of them.

    Polygons, circles and masks are masks, rectangles boxes, points clicks. Shapes with one ``group_id`` are parts of
    one object. A picture is the frame with its ``imagePath``, or with the name of the json.

    Raises:
        InputError: no such folder; a file that is none of LabelMe's; a line, which has no inside.
    """
    files = [path] if path.is_file() else data_files(path, (".json",)) if path.is_dir() else []
    if not files:
        raise InputError(f"--from labelme {path}: {'no .json in it' if path.is_dir() else 'no such folder'}")
    records = [_record(file) for file in files]
    pictures = [_picture(record, file) for record, file in zip(records, files, strict=True) if record["shapes"]]
    found = iter(frames.find(pictures, str(path)))
    for record, file in zip(records, files, strict=True):
        index = next(found) if record["shapes"] else None
        if index is not None:
            for number, shape in enumerate(record["shapes"], 1):
                yield _shape(shape, f"{file}, shape {number}", index, frames.hw)


def _record(path: Path) -> Mapping[str, Any]:
    text = read_text(path)
    try:
        record = json.loads(text)
        if not isinstance(record["shapes"], list):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a file of LabelMe (no list of 'shapes')") from error
    return dict(record)


def _picture(record: Mapping[str, Any], path: Path) -> Picture:
    height, width = record.get("imageHeight"), record.get("imageWidth")
    hw = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Picture(str(record.get("imagePath") or f"{path.stem}.jpg"), hw=hw)


def _shape(shape: Any, where: str, frame: int, hw: tuple[int, int]) -> Shape:
    if not isinstance(shape, Mapping) or "points" not in shape:
        raise InputError(f"{where}: no points in it")
    group = shape.get("group_id")
    if group is not None and not isinstance(group, int):
        raise InputError(f"{where}: group_id {str(group)[:40]!r}: a whole number or null expected")
    part = Shape(where, frame, group, str(shape.get("label") or ""), part=group is not None)
    points, kind = shape["points"], shape.get("shape_type") or "polygon"
    match kind:
        case "polygon" | "oriented_rectangle":
            return _with(part, mask=drawn(corners_of(points, where), hw))
        case "rectangle":
            return _with(part, box=box_of(points, where))
        case "circle":
            centre, edge = corners_of(points, where, 2)[:2]
            radius = float(np.hypot(*(edge - centre)))
            return _with(part, mask=ellipse(centre.tolist(), (radius, radius), hw))
        case "mask":
            return _with(part, mask=_mask(shape.get("mask"), points, where, hw))
        case "point" | "points":
            return _with(part, points=points_of(points, where))
    raise InputError(f"{where}: a {str(kind)[:40]!r} has no inside; draw a polygon, a rectangle or a point")


def _with(shape: Shape, **geometry: Any) -> Shape:
    return Shape(shape.where, shape.frame, shape.key, shape.label, part=shape.part, **geometry)


def _mask(data: Any, points: Any, where: str, hw: tuple[int, int]) -> Mask:
    """A picture of the mask within its box."""
    x, y = (round(value) for value in box_of(points, where)[:2])
    try:
        with Image.open(io.BytesIO(base64.b64decode(data)), formats=("PNG",)) as image:
            if image.width > hw[1] or image.height > hw[0]:
                raise ValueError
            window = np.array(image.convert("L")) > 0
    except (binascii.Error, TypeError, ValueError, OSError, SyntaxError) as error:
        raise InputError(f"{where}: its mask is not a PNG that fits the frame") from error
    mask = np.zeros(hw, np.bool_)
    cut = window[max(0, -y) : hw[0] - y, max(0, -x) : hw[1] - x]
    mask[max(0, y) : max(0, y) + cut.shape[0], max(0, x) : max(0, x) + cut.shape[1]] = cut
    return mask
