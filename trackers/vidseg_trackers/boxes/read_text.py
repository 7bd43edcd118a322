"""Boxes in lines of text: MOT, tables with named columns, and YOLO labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vidseg.errors import InputError
from vidseg.files import data_files
from vidseg.text import number, read_text, whole
from vidseg_trackers.detections import SHARES, BoxFile, Detection, corners, frame_number, id_of, score_of, xywh

_Line = tuple[int, list[str]]
_MOT = "frame, id, left, top, width, height[, confidence[, class]]"
_YOLO = "class x y width height [confidence] [id]"
_CLASSES = "classes.txt"
_COLUMNS = {
    "frame": ("frameindex", "frameid", "framenumber", "frame"),
    "name": ("filename", "imagename", "image", "file"),
    "id": ("trackid", "trackerid", "objectid", "objid", "instanceid", "id"),
    "left": ("bbleft", "bboxleft", "left", "xmin", "x1", "x"),
    "top": ("bbtop", "bboxtop", "top", "ymin", "y1", "y"),
    "width": ("bbwidth", "bboxwidth", "width", "w"),
    "height": ("bbheight", "bboxheight", "height", "h"),
    "right": ("right", "xmax", "x2"),
    "bottom": ("bottom", "ymax", "y2"),
    "score": ("confidence", "conf", "score"),
    "class": ("classname", "label", "category", "class", "classid"),
}
"""Names of columns in small letters without anything between them, the surest first."""


def read_lines(path: Path) -> BoxFile:
    """A text file: MOT, the YOLO labels of one frame, or a table whose first line names its columns.

    Fields are separated by commas, semicolons (then numbers may have a decimal comma), tabs or blanks; empty lines and
    lines that begin with # are left out.

    Raises:
        InputError: a line that is none of these; the message names it.
    """
    lines = list(_fields(path))
    if lines and all(number(field) is None for field in lines[0][1]):
        return _table(path, lines)
    if _is_yolo(lines):
        return BoxFile(path, list(_yolo(path, lines, {})), first=1, names=(path.name,))
    return BoxFile(path, list(_mot(path, lines)), first=1)


def read_yolo_folder(folder: Path) -> BoxFile:
    """A folder with one text file of YOLO labels per frame, named as the frame; it may have a ``classes.txt``.

    Raises:
        InputError: it has no text files, or one is malformed.
    """
    files = data_files(folder, (".txt",))
    if not files and (folder / "labels").is_dir():
        folder = folder / "labels"
        files = data_files(folder, (".txt",))
    labels = [file for file in files if file.name.lower() != _CLASSES]
    if not labels:
        raise InputError(f"{folder}: no .txt files; a folder of boxes has one file of YOLO labels per frame")
    classes = {
        number: name.strip()
        for file in files
        if file.name.lower() == _CLASSES
        for number, name in enumerate(read_text(file).split("\n"))
        if name.strip()
    }
    rows = [(file, list(_fields(file))) for file in labels]
    have_ids = _last_is_id([line for _, lines in rows for line in lines])
    boxes = [box for file, lines in rows for box in _yolo(file, lines, classes, have_ids=have_ids)]
    return BoxFile(folder, boxes, first=1, names=tuple(file.name for file in labels))


def _fields(path: Path) -> Iterator[_Line]:
    """Number and fields of every line that says something."""
    for place, line in enumerate(read_text(path, errors="replace").split("\n"), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        mark = next((mark for mark in ";,\t" if mark in text), None)
        if mark == ";":  # the tables of half of Europe
            text = re.sub(r"(?<=\d),(?=\d)", ".", text)
        parts = text.split() if mark is None else next(csv.reader([text], delimiter=mark, skipinitialspace=True))
        yield place, [part.strip() for part in parts]


def _mot(path: Path, lines: Sequence[_Line]) -> Iterator[Detection]:
    """-1 as id, confidence or class means none."""
    for place, fields in lines:
        try:
            frame, object_id, left, top, width, height, *rest = fields[:8]
            score, kind = [*rest, "", ""][:2]
            box = xywh((left, top, width, height))
            yield Detection(box, frame_number(frame), None, _score(score), id_of(object_id), _label(kind))
        except ValueError as error:
            raise InputError(f"{path}, line {place}: '{_MOT}' expected ({error})") from error


def _table(path: Path, lines: Sequence[_Line]) -> BoxFile:
    """Columns go by their names."""
    place, names = lines[0]
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in names]
    column = {
        field: plain.index(found)
        for field, spellings in _COLUMNS.items()
        for found in [next((name for name in spellings if name in plain), None)]
        if found is not None
    }
    corner = column.keys() >= {"right", "bottom"}
    needed = ["frame" if "frame" in column or "name" not in column else "name", "left", "top"]
    missing = [field for field in (*needed, *(() if corner else ("width", "height"))) if field not in column]
    if missing:
        raise InputError(f"{path}, line {place}: no column for {missing[0]} among {', '.join(names)[:80]}")
    detections = []
    for place, fields in lines[1:]:
        row = {field: fields[k] for field, k in column.items() if k < len(fields)}
        try:
            frame, name = (frame_number(row["frame"]), None) if "frame" in column else (None, row["name"])
            sides = [row[side] for side in ("left", "top", *(("right", "bottom") if corner else ("width", "height")))]
            box, score = corners(*sides) if corner else xywh(sides), _score(row.get("score", ""))
            detections.append(Detection(box, frame, name, score, id_of(row.get("id")), _label(row.get("class", ""))))
        except KeyError as error:
            raise InputError(f"{path}, line {place}: {len(fields)} fields, but {len(names)} columns") from error
        except ValueError as error:
            raise InputError(f"{path}, line {place}: {error}") from error
    first = 0 if "frame" in column and plain[column["frame"]] == "frameindex" else 1
    return BoxFile(path, detections, first=first, names=tuple({d.name for d in detections if d.name is not None}))


def _score(text: str) -> float:
    """A negative one means none, as does an empty field."""
    score = score_of(text or None)
    return score if score >= 0 else 1.0


def _label(text: str) -> str | None:
    kind = number(text)
    if kind is None:
        return text or None
    return f"{kind:g}" if kind > 0 else None


def _is_yolo(lines: Sequence[_Line]) -> bool:
    """MOT has six fields and more, and its second one is a whole number; YOLO's is a share of the frame."""
    rows = [fields for _, fields in lines]
    if not rows or any(whole(fields[0]) is None for fields in rows):
        return False
    if all(len(fields) == 5 for fields in rows):
        return True
    shares = all(len(fields) >= 5 and _is_share(fields[1:5]) for fields in rows)
    return shares and any(whole(fields[1]) is None for fields in rows)


def _is_share(fields: Sequence[str]) -> bool:
    values = [number(field) for field in fields]
    return all(value is not None and -0.01 <= value <= 1.01 for value in values)


def _last_is_id(lines: Sequence[_Line]) -> bool:
    """Whether the sixth of six fields is an id (of a tracker, saved without confidences) and no confidence."""
    last = [whole(fields[5]) for _, fields in lines if len(fields) == 6]
    return bool(last) and None not in last and max(value for value in last if value is not None) > 1


def _yolo(
    path: Path, lines: Sequence[_Line], classes: dict[int, str], *, have_ids: bool | None = None
) -> Iterator[Detection]:
    have_ids = _last_is_id(lines) if have_ids is None else have_ids
    for place, fields in lines:
        try:
            kind = frame_number(fields[0])
            values = [float(field) for field in fields[1:]]
            if not _is_share(fields[1 : 5 if len(fields) < 8 else None]):
                raise ValueError("fractions of the frame, 0 to 1, expected")
            score, object_id = 1.0, None
            if len(values) > 6:  # the outline of the object: x y x y ...
                box = corners(min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
            else:
                x, y, width, height, *rest = values
                box = xywh((x - width / 2, y - height / 2, width, height))
                if rest and (len(rest) == 2 or have_ids):
                    object_id = id_of(rest.pop())
                score = score_of(rest[0]) if rest else 1.0
            found = Detection(box, name=path.name, score=score, object_id=object_id, size=SHARES)
            yield replace(found, label=classes.get(kind, str(kind)))
        except ValueError as error:
            raise InputError(f"{path}, line {place}: '{_YOLO}' expected ({error})") from error
