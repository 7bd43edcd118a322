"""Reading and checking COCO-like json files before anything is computed: every finding is one line with the place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from pycocotools import mask as coco_mask

from vidseg.errors import InputError
from vidseg.masks.rle import from_coco
from vidseg.text import number, read_json, whole
from vidseg.types import Rle

Row = Mapping[str, Any]
_IDS = ("id", "image_id", "video_id", "category_id")


def read_ground_truth(path: Path, tables: Sequence[str]) -> dict[str, list[Row]]:
    """The lists ``tables`` of a ground-truth file, with the ids of every row checked; 7.0 and "7" become 7.

    Raises:
        InputError: a list is missing, or has rows without an id or with an id twice.
    """
    return check_tables(read_json(path), tables, path)


def check_tables(data: Any, tables: Sequence[str], path: Path) -> dict[str, list[Row]]:
    """:func:`read_ground_truth` of the content of a file that was read already; ``path`` names it in errors."""
    if not isinstance(data, dict):
        raise InputError(f"{path}: a ground-truth file is an object with the lists {', '.join(tables)}")
    if data.get("annotations") is None:
        raise InputError(
            f"{path}: no 'annotations' in it: the ground truth of this split is not public, score it there"
        )
    checked = {}
    for table in tables:
        rows = data.get(table)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: '{table}' must be a list of objects")
        checked[table] = _with_whole_ids(rows)
        _check_ids(checked[table], table, path)
    return checked


def _with_whole_ids(rows: Iterable[Row]) -> list[Row]:
    """Rows whose ids are integers wherever they are whole numbers."""
    return [row if all(type(row.get(key, 0)) is int for key in _IDS) else {**row, **_whole_ids(row)} for row in rows]


def _whole_ids(row: Row) -> dict[str, int]:
    numbers = {key: whole(row[key]) for key in _IDS if key in row}
    return {key: value for key, value in numbers.items() if value is not None}


def _check_ids(rows: Iterable[Row], table: str, path: Path) -> None:
    seen: set[int] = set()
    lowest = 1 if table == "annotations" else 0
    for place, row in enumerate(rows):
        value = row.get("id")
        if not is_int(value) or value.bit_length() > 63:
            raise InputError(f"{path}: {table}[{place}] has id {_show(value)}: an integer of 64 bits is expected")
        if value < lowest:
            why = ": 0 means 'no match' to evaluators; start at 1" if value == 0 else ""
            raise InputError(f"{path}: {table}[{place}] has id {value}, at least {lowest} is expected{why}")
        if value in seen:
            raise InputError(f"{path}: {table}[{place}] has id {value} again: ids must be unique")
        seen.add(value)


def read_results(
    path: Path,
    key: str,
    places: Collection[int],
    categories: Collection[int] | None,
    names: Mapping[str, Collection[int]] | None = None,
) -> list[Row]:
    """A list of results ``{key, category_id, score, ...}``; ``key`` says of which image or video.

    Args:
        path: the json file.
        key: ``image_id`` or ``video_id``.
        places: the ids of the ground truth.
        categories: the allowed ones; None: results may have any, or none.
        names: file names that may stand for an id of ``places``, see :func:`names_of`.

    Raises:
        InputError: not such a list, an unknown image, video or category, or a score that is no finite number.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: results are a list of objects with {key}, category_id, score and the masks")
    if names and any(isinstance(row.get(key), str) for row in rows):
        rows = [_with_named_id(row, key, places, names, f"{path}: result {k}") for k, row in enumerate(rows)]
    rows = _with_whole_ids(rows)
    for place, row in enumerate(rows):
        check_known(row, key, places, f"{path}: result {place}")
        if categories is not None:
            check_known(row, "category_id", categories, f"{path}: result {place}")
        score = number(row.get("score"))
        if score is None:
            raise InputError(f"{path}: result {place} has score {_show(row.get('score'))}: a finite number is expected")
        if isinstance(row["score"], str):
            rows[place] = {**row, "score": score}
    return rows


def names_of(images: Iterable[Row]) -> dict[str, set[int]]:
    """Ids by file name: as it is written, without folders, and without the suffix too."""
    names: dict[str, set[int]] = {}
    for row in images:
        name = row.get("file_name")
        if isinstance(name, str) and name:
            path = PurePosixPath(name.replace("\\", "/"))
            for text in {name, path.name, path.stem}:
                names.setdefault(text, set()).add(row["id"])
    return names


def _with_named_id(
    row: Row, key: str, places: Collection[int], names: Mapping[str, Collection[int]], where: str
) -> Row:
    value = row.get(key)
    if not isinstance(value, str):
        return row
    path = PurePosixPath(value.replace("\\", "/"))
    ids = next((names[text] for text in (value, path.name, path.stem) if text in names), ())
    by_number = whole(value)
    found = {*ids, by_number} if by_number in places else {*ids}
    if len(found) > 1:
        shown = ", ".join(str(one) for one in sorted(found, key=str)[:3])
        raise InputError(f"{where} has {key} {_show(value)}, which fits several images ({shown}): use their ids")
    if not found and by_number is None:
        some = next(iter(names))
        raise InputError(f"{where} has {key} {_show(value)}, which the ground truth does not have (it has {some}, ...)")
    return {**row, key: found.pop()} if found else row


def check_known(row: Row, key: str, allowed: Collection[int], where: str) -> None:
    """Check that ``row[key]`` is one of the ids of the ground truth.

    Raises:
        InputError: it is missing or unknown.
    """
    value = row.get(key)
    if is_int(value) and value in allowed:
        return
    some = ", ".join(str(v) for v in sorted(allowed)[:5]) + (", ..." if len(allowed) > 5 else "")
    if value is not None and not is_int(value):
        raise InputError(f"{where} has {key} {_show(value)}: an integer is expected (the ground truth has {some})")
    raise InputError(f"{where} has {key} {_show(value)}, which the ground truth does not have (it has {some})")


def check_annotation(row: Row, where: str) -> None:
    """Check ``iscrowd`` and ``ignore`` of a ground-truth row; both may be missing.

    Raises:
        InputError: not 0 or 1.
    """
    for key in ("iscrowd", "ignore"):
        if row.get(key, 0) not in (0, 1):
            raise InputError(f"{where} has {key} {_show(row[key])}: 0 or 1 is expected")


def size_of(row: Row, where: str) -> tuple[int, int]:
    """(height, width) of an image or a video.

    Raises:
        InputError: missing, or not positive integers.
    """
    height, width = whole(row.get("height")), whole(row.get("width"))
    if height is None or width is None or height < 1 or width < 1:
        raise InputError(
            f"{where} has size {_show(row.get('width'))}x{_show(row.get('height'))} (width x height): positive "
            "integers are expected"
        )
    return height, width


def area_of(row: Row, where: str) -> float:
    """The ``area`` of an annotation.

    Raises:
        InputError: missing, negative or not finite.
    """
    value = number(row.get("area"))
    if value is None or value < 0:
        raise InputError(f"{where} has area {_show(row.get('area'))}: a finite number of at least 0 is expected")
    return value


def read_mask(value: object, size: tuple[int, int], where: str, polygons: bool) -> Rle:
    """A mask of a json file: run-lengths, or where ``polygons`` are allowed a list of them, drawn as COCO draws them.

    Raises:
        InputError: malformed, or not of ``size`` (height, width).
    """
    if isinstance(value, list) and polygons:
        return _draw(value, size, where)
    if not isinstance(value, Mapping):
        expected = "run-lengths or polygons" if polygons else "run-lengths, not polygons,"
        raise InputError(f"{where} has a segmentation of type {type(value).__name__}: {expected} are expected")
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
            raise InputError(f"{where}: polygon {_show(points)}: a flat list of 3 or more points x, y is expected")
    if not polygons:
        raise InputError(f"{where}: an empty list of polygons: at least one is expected")
    counts = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"]
    return Rle(size[0], size[1], bytes(counts))


def is_int(value: object) -> TypeGuard[int]:
    """True for integers, which excludes booleans."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """True for finite integers and floats."""
    return isinstance(value, (int, float)) and number(value) is not None


def _show(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
