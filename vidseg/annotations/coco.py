"""COCO: images, and annotations with run-lengths, polygons or boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from vidseg.annotations.frames import FrameFinder, Picture
from vidseg.annotations.shapes import Mask, Shape, box_of, corners_of, filled
from vidseg.errors import InputError
from vidseg.limits import HIGHEST_LIMIT
from vidseg.masks.rle import decode, from_coco
from vidseg.text import read_text


def read_coco(path: Path, frames: FrameFinder) -> Iterator[Shape]:
    """Shapes of a data set: segmentations are masks, a ``bbox`` without one is a box, crowds are left out.

    ``track_id`` (also among the ``attributes``) says which object it is. An image is the frame with its ``file_name``,
    else the one of its ``frame_id``. Of several ``videos`` that of the same name is read.

    Raises:
        InputError: no such data set; no video of this name.
    """
    data = _load(path)
    try:
        names = {row["id"]: str(row["name"]) for row in data.get("categories", ())}
        images = {row["id"]: row for row in _of_video(data, frames, path)}
        labelled = dict[Any, list[tuple[int, Any]]]()
        for number, row in enumerate(data["annotations"], 1):
            if row["image_id"] in images and not row.get("iscrowd"):
                labelled.setdefault(row["image_id"], []).append((number, row))
        pictures = [_picture(images[image]) for image in labelled]
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a COCO data set (images, annotations and categories expected)") from error
    for index, rows in zip(frames.find(pictures, str(path)), labelled.values(), strict=True):
        if index is not None:
            for number, row in rows:
                yield _shape(row, f"{path}, annotation {row.get('id', number)}", index, names, frames.hw)


def mask_of(segmentation: Any, where: str, hw: tuple[int, int]) -> Mask:
    """The mask of run-lengths, compressed or not, or of polygons, which add up.

    Raises:
        InputError: something else, or of another size.
    """
    if isinstance(segmentation, Mapping):
        try:
            rle = from_coco(segmentation, HIGHEST_LIMIT)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if (rle.height, rle.width) != hw:
            raise InputError(f"{where}: the mask is {rle.width}x{rle.height}, the frames are {hw[1]}x{hw[0]}")
        return decode(rle)
    if not isinstance(segmentation, list):
        raise InputError(f"{where}: a segmentation is a list of polygons or run-lengths")
    mask = np.zeros(hw, np.bool_)
    for polygon in segmentation:
        mask |= filled(corners_of(polygon, where), hw)
    return mask


def whole_or_none(value: Any, where: str) -> int | None:
    """The number of an object (InputError: something else than a whole number)."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise InputError(f"{where}: track_id {str(value)[:40]!r}: a whole number expected")


def _load(path: Path) -> Mapping[str, Any]:
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        hint = "; results have no images: give the data set (coco.json)" if isinstance(data, list) else ""
        raise InputError(f"{path}: not a COCO data set (images, annotations and categories expected){hint}")
    return data


def _of_video(data: Mapping[str, Any], frames: FrameFinder, path: Path) -> list[Any]:
    videos = data.get("videos") or ()
    if len(videos) < 2:
        return list(data["images"])
    names = {row["id"]: str(row["name"]) for row in videos}
    wanted = [number for number, name in names.items() if frames.video.name in (name, PurePath(name).stem)]
    if len(wanted) != 1:
        listed = ", ".join(list(names.values())[:5])
        raise InputError(f"{path}: of its {len(names)} videos ({listed}) {len(wanted)} are called {frames.video.name}")
    return [row for row in data["images"] if row.get("video_id") == wanted[0]]


def _picture(row: Mapping[str, Any]) -> Picture:
    height, width, number = row.get("height"), row.get("width"), row.get("frame_id")
    return Picture(
        str(row.get("file_name") or ""),
        number if isinstance(number, int) else None,
        (height, width) if isinstance(height, int) and isinstance(width, int) else None,
    )


def _shape(row: Any, where: str, frame: int, names: Mapping[Any, str], hw: tuple[int, int]) -> Shape:
    attributes = row.get("attributes")
    more = attributes if isinstance(attributes, Mapping) else {}
    key = whole_or_none(row.get("track_id", more.get("track_id")), where)
    category = row.get("category_id")
    label = names.get(category) if isinstance(category, int | str) else None
    if row.get("segmentation"):
        return Shape(where, frame, key, label, mask=mask_of(row["segmentation"], where, hw))
    x, y, width, height = corners_of(row.get("bbox"), where, 2).ravel().tolist()[:4]
    return Shape(where, frame, key, label, box=box_of((x, y, x + width, y + height), where))
