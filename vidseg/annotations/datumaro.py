"""Datumaro: a folder with ``annotations/SUBSET.json``, or a project with one in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidseg.annotations.coco import mask_of, whole_or_none
from vidseg.annotations.frames import FrameFinder, Picture
from vidseg.annotations.shapes import Shape, box_of, corners_of, ellipse, points_of
from vidseg.errors import InputError
from vidseg.files import data_files
from vidseg.text import read_text

_IGNORED = ("label", "caption")  # of the whole picture


def read_datumaro(path: Path, frames: FrameFinder) -> Iterator[Shape]:
    """Shapes of all subsets: masks, polygons and ellipses are masks, boxes are boxes, points are clicks.

    The attribute ``track_id`` says which object it is; shapes of one number on a frame are its parts. An item is the
    frame with the name of its image, else the one of its attribute ``frame``.

    Raises:
        InputError: no such data set, or a shape without an inside.
    """
    records = [(file, *_record(file)) for file in _files(path)]
    labelled = [(file, names, item) for file, names, items in records for item in items if item.get("annotations")]
    indices = frames.find([_picture(item) for _, _, item in labelled], str(path))
    for index, (file, names, item) in zip(indices, labelled, strict=True):
        if index is None:
            continue
        for number, row in enumerate(item["annotations"], 1):
            where = f"{file}, item {item.get('id')}, annotation {number}"
            if not isinstance(row, Mapping):
                raise InputError(f"{where}: a mapping expected")
            if row.get("type") not in _IGNORED:
                yield _shape(row, where, index, names, frames.hw)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path, *sorted(path.glob("*/annotations"))) if path.is_dir() else ():
        annotations = folder / "annotations" if folder == path else folder
        if annotations.is_dir() and (files := data_files(annotations, (".json",))):
            return files
    raise InputError(f"--from datumaro {path}: no annotations/*.json in it")


def _record(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of classes, and items."""
    text = read_text(path)
    try:
        data = json.loads(text)
        labels = data.get("categories", {}).get("label", {}).get("labels", ())
        items = data["items"]
        if not all(isinstance(item, dict) and isinstance(item.get("annotations") or [], list) for item in items):
            raise TypeError
        return [str(label["name"]) for label in labels], items
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a data set of Datumaro (categories and items expected)") from error


def _picture(item: Mapping[str, Any]) -> Picture:
    image, more = item.get("image") or item.get("media"), item.get("attr")
    image, more = image if isinstance(image, dict) else {}, more if isinstance(more, dict) else {}
    size, number = image.get("size"), more.get("frame")
    return Picture(
        str(image.get("path") or item.get("id") or ""),
        number if isinstance(number, int) else None,
        (size[0], size[1]) if isinstance(size, list) and [type(side) for side in size] == [int, int] else None,
    )


def _shape(row: Mapping[str, Any], where: str, frame: int, names: list[str], hw: tuple[int, int]) -> Shape:
    number, more = row.get("label_id"), row.get("attributes")
    label = names[number] if isinstance(number, int) and 0 <= number < len(names) else None
    key = whole_or_none(more.get("track_id") if isinstance(more, Mapping) else None, where)
    geometry: dict[str, Any]
    match row.get("type"):
        case "mask":
            geometry = {"mask": mask_of(row.get("rle"), where, hw)}
        case "polygon":
            geometry = {"mask": mask_of([row.get("points")], where, hw)}
        case "ellipse":
            x1, y1, x2, y2 = box_of(row.get("points"), where)
            geometry = {"mask": ellipse(((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2, (y2 - y1) / 2), hw)}
        case "bbox":
            x, y, width, height = corners_of(row.get("bbox"), where, 2).ravel().tolist()[:4]
            geometry = {"box": box_of((x, y, x + width, y + height), where)}
        case "points":
            geometry = {"points": points_of(row.get("points"), where)}
        case kind:
            raise InputError(f"{where}: a {str(kind)[:40]!r} has no inside; make it a mask, a polygon or a box")
    return Shape(where, frame, key, label, part=key is not None, **geometry)
