"""Reading and checking COCO-like json files before anything is computed: every finding is one line with the place."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from pycocotools import mask as coco_mask

from vidseg.errors import InputError
from vidseg.masks.rle import from_coco
from vidseg.types import Rle

Row = Mapping[str, Any]


def read_json(path: Path) -> Any:
    """The content of a json file.

    Raises:
        InputError: missing, not text, or not json.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no text, no json, or a number without end
        raise InputError(f"{path}: not a readable json file ({error})") from None


def read_ground_truth(path: Path, tables: Sequence[str]) -> dict[str, list[Row]]:
    """The lists ``tables`` of a ground-truth file, with the ids of every row checked.

    Raises:
        InputError: a list is missing, or has rows without an id or with an id twice.
    """
    return check_tables(read_json(path), tables, path)


def check_tables(data: Any, tables: Sequence[str], path: Path) -> dict[str, list[Row]]:
    """:func:`read_ground_truth` of the content of a file that was read already; ``path`` names it in errors."""
    if not isinstance(data, dict):
        raise InputError(f"{path}: a ground-truth file is an object with the lists {', '.join(tables)}")
    if "annotations" not in data:
        raise InputError(
            f"{path}: no 'annotations' in it: the ground truth of this split is not public, score it there"
        )
    for table in tables:
        rows = data.get(table)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: '{table}' must be a list of objects")
        _check_ids(rows, table, path)
    return {table: data[table] for table in tables}


def _check_ids(rows: Iterable[Row], table: str, path: Path) -> None:
    seen: set[int] = set()
    lowest = 1 if table == "annotations" else 0
    for place, row in enumerate(rows):
        value = row.get("id")
        if not is_int(value) or value.bit_length() > 63:
            raise InputError(f"{path}: {table}[{place}] has id {_show(value)}: an integer of 64 bits is wanted")
        if value < lowest:
            why = ": 0 means 'no match' to evaluators; start at 1" if value == 0 else ""
            raise InputError(f"{path}: {table}[{place}] has id {value}, at least {lowest} is wanted{why}")
        if value in seen:
            raise InputError(f"{path}: {table}[{place}] has id {value}, which is there already: ids must be distinct")
        seen.add(value)


def read_results(path: Path, key: str, places: Collection[int], categories: Collection[int] | None) -> list[Row]:
    """A list of results ``{key, category_id, score, ...}``; ``key`` names the image or video.

    ``categories``: the allowed ones; None: results may have any, or none.

    Raises:
        InputError: not such a list, an unknown image, video or category, or a score that is no finite number.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: results are a list of objects with {key}, category_id, score and the masks")
    for place, row in enumerate(rows):
        check_known(row, key, places, f"{path}: result {place}")
        if categories is not None:
            check_known(row, "category_id", categories, f"{path}: result {place}")
        if not is_number(row.get("score")):
            raise InputError(f"{path}: result {place} has score {_show(row.get('score'))}: a finite number is wanted")
    return rows


def check_known(row: Row, key: str, allowed: Collection[int], where: str) -> None:
    """Check that ``row[key]`` is one of the ids of the ground truth.

    Raises:
        InputError: it is missing or unknown.
    """
    value = row.get(key)
    if not is_int(value) or value not in allowed:
        some = ", ".join(str(v) for v in sorted(allowed)[:5]) + (", ..." if len(allowed) > 5 else "")
        raise InputError(f"{where} has {key} {_show(value)}, which the ground truth does not have (it has {some})")


def check_annotation(row: Row, where: str) -> None:
    """Check ``iscrowd`` and ``ignore`` of a ground-truth row; both may be missing.

    Raises:
        InputError: not 0 or 1.
    """
    for key in ("iscrowd", "ignore"):
        if row.get(key, 0) not in (0, 1):
            raise InputError(f"{where} has {key} {_show(row[key])}: 0 or 1 is wanted")


def size_of(row: Row, where: str) -> tuple[int, int]:
    """(height, width) of an image or a video.

    Raises:
        InputError: missing, or not positive integers.
    """
    height, width = row.get("height"), row.get("width")
    if not is_int(height) or not is_int(width) or height < 1 or width < 1:
        raise InputError(
            f"{where} has size {_show(width)}x{_show(height)} (width x height): positive integers are wanted"
        )
    return height, width


def area_of(row: Row, where: str) -> float:
    """The ``area`` of an annotation.

    Raises:
        InputError: missing, negative or not finite.
    """
    value = row.get("area")
    if not is_number(value) or value < 0:
        raise InputError(f"{where} has area {_show(value)}: a finite number of at least 0 is wanted")
    return float(value)


def read_mask(value: object, size: tuple[int, int], where: str, polygons: bool) -> Rle:
    """A mask of a json file: run-lengths, or where ``polygons`` are allowed a list of them, drawn as COCO draws them.

    Raises:
        InputError: malformed, or not of ``size`` (height, width).
    """
    if isinstance(value, list) and polygons:
        return _draw(value, size, where)
    if not isinstance(value, Mapping):
        wanted = "run-lengths or polygons" if polygons else "run-lengths, not polygons,"
        raise InputError(f"{where} has a segmentation of type {type(value).__name__}: {wanted} are wanted")
    try:
        rle = from_coco(value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if (rle.height, rle.width) != size:
        raise InputError(f"{where}: mask of {rle.width}x{rle.height} pixels, but the frame has {size[1]}x{size[0]}")
    return rle


def _draw(polygons: list[Any], size: tuple[int, int], where: str) -> Rle:
    for points in polygons:
        fine = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
        if not fine or not all(is_number(v) and abs(v) < 1e6 for v in points):
            raise InputError(f"{where}: polygon {_show(points)}: a flat list of 3 or more points x, y is wanted")
    if not polygons:
        raise InputError(f"{where}: an empty list of polygons: at least one is wanted")
    counts = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"]
    return Rle(size[0], size[1], bytes(counts))


def is_int(value: object) -> TypeGuard[int]:
    """True for integers, which excludes booleans."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """True for finite integers and floats."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _show(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
