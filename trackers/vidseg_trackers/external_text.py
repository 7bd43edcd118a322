"""Boxes in lines of text: MOT, and YOLO labels."""

from __future__ import annotations

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
_CORNERS = re.compile(r"x_?2|x_?max|right")


def read_lines(path: Path) -> BoxFile:
    """A text file: MOT, or the YOLO labels of one frame, told apart by what its lines hold.

    Fields are separated by commas, blanks, tabs or semicolons; empty lines, lines that begin with #, and a line of
    column names are left out.

    Raises:
        InputError: a line that is neither; the message names it.
    """
    lines = list(_fields(path))
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
    """Number and fields of every line with numbers."""
    first = True
    for place, line in enumerate(read_text(path, errors="replace").split("\n"), 1):
        if ";" in line:  # then a comma is the decimal point, as in tables of half of Europe
            line = line.replace(",", ".").replace(";", " ")
        fields = line.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        if first and all(number(field) is None for field in fields):
            if _CORNERS.search(line.lower()):
                raise InputError(f"{path}, line {place}: boxes by their corners; expected are {_MOT}")
        else:
            yield place, fields
        first = False


def _mot(path: Path, lines: Sequence[_Line]) -> Iterator[Detection]:
    """-1 as id, confidence or class means none."""
    for place, fields in lines:
        try:
            frame, object_id, left, top, width, height, *rest = fields[:8]
            score = score_of(rest[0]) if rest else 1.0
            kind = score_of(rest[1]) if len(rest) > 1 else 0.0
            yield Detection(
                xywh((left, top, width, height)),
                frame_number(frame),
                score=score if score >= 0 else 1.0,
                object_id=id_of(object_id),
                label=f"{kind:g}" if kind > 0 else None,
            )
        except ValueError as error:
            raise InputError(f"{path}, line {place}: '{_MOT}' expected ({error})") from error


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
                raise ValueError("shares of the frame, 0 to 1, expected")
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
