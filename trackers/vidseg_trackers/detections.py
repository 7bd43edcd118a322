"""One form for the boxes of every detector, tracker and labelling tool, and the rules for their fields."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidseg.text import number, whole

Box = tuple[float, float, float, float]
SHARES = (1, 1)
"""Size of a frame whose boxes are shares of it."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One box (XYXY, right and bottom exclusive) on the frame that ``frame`` or ``name`` stands for.

    ``frame`` is a number as the file counts frames, ``name`` the name of the frame's file. ``object_id`` is None where
    the file has no ids. ``size`` (width, height) is the frame that the box was made for, if the file names it.
    """

    box: Box
    frame: int | None = None
    name: str | None = None
    score: float = 1.0
    object_id: int | None = None
    label: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class BoxFile:
    """What a file says.

    ``first`` is the number that its format gives to the first frame; with ``exact`` the file's numbers are indices of
    frames and need no guess. ``names`` and ``numbers``: of all frames that it knows, with boxes or without.
    """

    path: Path
    detections: list[Detection]
    first: int = 0
    exact: bool = False
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def with_positive_ids(file: BoxFile) -> BoxFile:
    """Tools that count objects from 0: all their ids go up by one."""
    if all(detection.object_id != 0 for detection in file.detections):
        return file
    raised = [
        detection if detection.object_id is None else replace(detection, object_id=detection.object_id + 1)
        for detection in file.detections
    ]
    note = f"{file.path}: object ids count from 0; ids here are positive, so all go up by 1"
    return replace(file, detections=raised, notes=(*file.notes, note))


def corners(left: Any, top: Any, right: Any, bottom: Any) -> Box:
    """A checked box.

    Raises:
        ValueError: not finite, or right of left, bottom above top.
    """
    box = (float(left), float(top), float(right), float(bottom))
    if not all(map(math.isfinite, box)) or box[2] < box[0] or box[3] < box[1]:
        shown = ",".join(f"{v:g}" for v in box)
        raise ValueError(f"box {shown}: finite numbers, width and height not negative expected")
    return box


def xywh(values: Iterable[Any]) -> Box:
    """:func:`corners` of left, top, width, height."""
    left, top, width, height = (float(v) for v in values)
    return corners(left, top, left + width, top + height)


def score_of(value: object) -> float:
    """A score; 1 where there is none.

    Raises:
        ValueError: not a finite number: a score that is none must not decide by accident.
    """
    if value is None:
        return 1.0
    found = number(value)
    if found is None:
        raise ValueError(f"score {value!r}: a finite number expected")
    return found


def id_of(value: object) -> int | None:
    """An object id in any spelling: 7, 7.0, "7"; None for none: null, an empty text, nan and -1.

    Raises:
        ValueError: something else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and value.strip().lower() in ("", "nan", "none", "null"):
        return None
    found = whole(value)
    if found is None or found < -1:
        raise ValueError(f"object id {value!r}: a whole number from 0 on expected (-1: none)")
    return None if found == -1 else found


def frame_number(value: object) -> int:
    """The number of a frame.

    Raises:
        ValueError: not a whole number from 0 on.
    """
    found = whole(value)
    if found is None or found < 0:
        raise ValueError(f"frame {value!r}: a whole number from 0 on expected")
    return found
