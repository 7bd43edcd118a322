"""Shapes as labelling tools have them: what they cover, which object they belong to, and what prompt they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from vidseg.classes import UNNAMED
from vidseg.errors import InputError
from vidseg.masks.rle import decode
from vidseg.names import printable
from vidseg.types import Prompt, Rle

Mask: TypeAlias = npt.NDArray[np.bool_]
Corners: TypeAlias = npt.NDArray[np.float64]
"""(n, 2) as x, y."""
Box: TypeAlias = tuple[float, float, float, float]
_Key: TypeAlias = "int | str | tuple[str, int]"


@dataclass(frozen=True)
class Shape:
    """What somebody drew of one object on one frame: a mask, a box (XYXY, exclusive), or clicks on it."""

    where: str
    """Its place in the file, for errors."""
    frame: int
    key: int | None
    """Number of the object, the same on all frames; None: the file does not say which object it is."""
    label: str | None
    mask: Mask | None = field(default=None, repr=False)
    box: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    part: bool = False
    """Whether an object may have several of these on a frame."""


def prompts_of(shapes: Iterable[Shape]) -> list[Prompt]:
    """One prompt per object and frame.

    Numbers of objects stay as they are; where there is a 0, all are counted from 1. Shapes without a number are one
    object where they have the same name and no frame has two of them.

    Raises:
        InputError: shapes that contradict each other, or have no pixel in the frame.
    """
    shapes = [replace(shape, label=_name(shape.label)) for shape in shapes]
    keys = _keys(shapes)
    ids = _ids(keys)
    labels: dict[_Key, tuple[str | None, str]] = {}
    merged: dict[tuple[int, int], tuple[Shape, Prompt]] = {}
    for shape, key in zip(shapes, keys, strict=True):
        if isinstance(key, int) and key < 0:
            raise InputError(f"{shape.where}: object {key}: numbers of objects are not negative")
        label, where = labels.setdefault(key, (shape.label, shape.where))
        if label != shape.label:
            raise InputError(
                f"{shape.where}: object {key} is '{shape.label or UNNAMED}' here and '{label or UNNAMED}' in {where}:"
                " one object has one number and one name"
            )
        if shape.mask is not None and not shape.mask.any():
            raise InputError(f"{shape.where}: the shape has no pixel in the frame")
        marks = (1,) * len(shape.points)
        prompt = Prompt(
            shape.frame, ids[key], box=shape.box, points=shape.points, point_labels=marks, mask=shape.mask, label=label
        )
        place = shape.frame, ids[key]
        if place in merged:
            prompt = _joined(*merged[place], shape, prompt)
        merged[place] = shape, prompt
    return [merged[place][1] for place in sorted(merged)]


def filled(corners: Corners, hw: tuple[int, int]) -> Mask:
    """What a polygon encloses, along the edges of the pixels: x = 0 is the left edge of the first one."""
    height, width = hw
    bounded = np.clip(corners, (-width, -height), (2 * width, 2 * height))
    (rle,) = coco_mask.frPyObjects([bounded.ravel().tolist()], height, width)
    return decode(Rle(height, width, rle["counts"]))


def drawn(corners: Corners, hw: tuple[int, int]) -> Mask:
    """What a polygon encloses and its line touches, through the centres of the pixels, which are whole numbers."""
    height, width = hw
    image = Image.new("1", (width, height))
    bounded = np.clip(corners, (-width, -height), (2 * width, 2 * height))
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in bounded], fill=1, outline=1)
    return np.array(image, np.bool_)


def ellipse(centre: Sequence[float], radii: Sequence[float], hw: tuple[int, int]) -> Mask:
    """An ellipse along the edges of the pixels."""
    y, x = np.ogrid[: hw[0], : hw[1]]
    (cx, cy), (rx, ry) = centre, radii
    return np.asarray(((x + 0.5 - cx) / max(rx, 1e-6)) ** 2 + ((y + 0.5 - cy) / max(ry, 1e-6)) ** 2 <= 1, np.bool_)


def corners_of(value: Any, where: str, least: int = 3) -> Corners:
    """Corners from pairs of numbers, or from numbers in a row.

    Raises:
        InputError: something else, or fewer than ``least``.
    """
    try:
        corners = np.asarray(value, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: points expected as pairs x, y of numbers") from error
    if len(corners) < least or not np.isfinite(corners).all():
        raise InputError(f"{where}: {least} or more points of finite numbers expected, got {len(corners)}")
    return corners


def box_of(value: Any, where: str) -> Box:
    """A box from x1, y1, x2, y2 or two opposite corners.

    Raises:
        InputError: something else, or no area.
    """
    corners = corners_of(value, where, 2)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    if len(corners) != 2 or x1 == x2 or y1 == y2:
        raise InputError(f"{where}: a box with two corners and an area expected")
    return x1, y1, x2, y2


def points_of(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    """Clicks on an object (InputError: something else)."""
    return tuple((float(x), float(y)) for x, y in corners_of(value, where, 1))


def _joined(first: Shape, earlier: Prompt, second: Shape, later: Prompt) -> Prompt:
    if not (first.part and second.part):
        raise InputError(f"{second.where}: object {earlier.object_id} is also {first.where}: one number, two objects")
    if earlier.mask is not None and later.mask is not None:
        return replace(earlier, mask=earlier.mask | later.mask)
    if earlier.mask is not None or later.mask is not None or (earlier.box and later.box):
        raise InputError(
            f"{second.where}: object {earlier.object_id} has another shape on this frame, and the two do not go"
            " together: draw one box with points, or outlines only"
        )
    return replace(
        earlier,
        box=earlier.box or later.box,
        points=earlier.points + later.points,
        point_labels=earlier.point_labels + later.point_labels,
    )


def _name(label: str | None) -> str | None:
    """A name as a prompt has it; what exports call objects without one is none."""
    name = printable(label or "").strip()
    number = name.removeprefix(UNNAMED).strip()
    return None if not name or (name.startswith(UNNAMED) and (not number or number.isdecimal())) else name


def _keys(shapes: Sequence[Shape]) -> list[_Key]:
    """Which object every shape belongs to."""
    on_frame = Counter((shape.label, shape.frame) for shape in shapes if shape.key is None)
    frames: dict[str | None, set[int]] = {}
    for label, frame in on_frame:
        frames.setdefault(label, set()).add(frame)
    keys: list[_Key] = []
    for number, shape in enumerate(shapes):
        name = shape.label or ""
        if shape.key is not None:
            keys.append(shape.key)
        elif all(on_frame[shape.label, frame] == 1 for frame in frames[shape.label]):
            keys.append(name)
        elif len(frames[shape.label]) == 1:
            keys.append((name, number))
        else:
            raise InputError(
                f"{shape.where}: which '{name or UNNAMED}' is it? A frame has two or more and other frames have some:"
                " give all shapes of one object the same number (LabelMe: Group ID, COCO and Datumaro: track_id)"
            )
    return keys


def _ids(keys: Sequence[_Key]) -> dict[_Key, int]:
    numbers = {key for key in keys if isinstance(key, int)}
    ids: dict[_Key, int] = {key: key + (0 in numbers) for key in numbers}
    used = {*ids.values()}
    free = (number for number in count(1) if number not in used)
    for key in keys:
        if key not in ids:
            ids[key] = next(free)
    return ids
