"""The objects of an image or video that get masks: from a detector's file, a tracker, or the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg.errors import InputError
from vidseg.evaluation.checks import Row, read_mask
from vidseg.masks.rle import bbox, from_coco
from vidseg.types import Rle, Tracks
from vidseg_pipelines.reproduce.object_prompts import Floats, xyxy

Boxes = tuple[Floats | None, ...]


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """One object: its class, its score, and per frame its box or given mask (None where it is absent), or its
    ground-truth row."""

    category: int
    score: float
    boxes: Boxes = ()
    truth: Row | None = None
    masks: tuple[Rle | None, ...] = ()


def masks_from_row(row: Row, size: tuple[int, int], frames: int, where: str) -> DetectedObject:
    """An entry of a results file with its `segmentation` or `segmentations`, of ``size`` (height, width).

    Raises:
        InputError: malformed masks, of another size, or not one per frame.
    """
    values = row.get("segmentations") if "segmentations" in row else [row.get("segmentation")]
    if not isinstance(values, list) or len(values) != frames:
        raise InputError(f"{where}: 'segmentations' must be a list of {frames} masks, one per frame, null where absent")
    masks = tuple(None if value is None else read_mask(value, size, where, polygons=True) for value in values)
    return DetectedObject(row["category_id"], float(row["score"]), masks=masks)


def object_from_row(row: Row, frames: int, where: str) -> DetectedObject:
    """An entry of a results file, with `bbox` or `bboxes` (XYWH), or else the boxes of its segmentation(s).

    Raises:
        InputError: malformed boxes, or not one per frame.
    """
    values: Any
    if frames == 1 and "bboxes" not in row and "segmentations" not in row:
        values = [row["bbox"] if row.get("bbox") is not None else row.get("segmentation")]
    else:
        values = row["bboxes"] if row.get("bboxes") is not None else row.get("segmentations")
    if not isinstance(values, list) or len(values) != frames:
        raise InputError(f"{where}: 'bboxes' must be a list of {frames} boxes, one per frame, null where absent")
    return DetectedObject(row["category_id"], float(row["score"]), tuple(_box(value, where) for value in values))


def _box(value: Any, where: str) -> Floats | None:
    if value is None or not isinstance(value, Mapping):
        return None if value is None else xyxy(value, where)
    try:
        box = bbox(from_coco(value))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return box if box[2] > box[0] else None


def objects_from_tracks(
    tracks: Sequence[Tracks], frames: int, categories: Mapping[int, str], where: str
) -> list[DetectedObject]:
    """The objects of a tracker: mean score, and the class of the first frame, a number or a name of ``categories``.

    Raises:
        InputError: a class that the data set does not have.
    """
    numbers = {name: number for number, name in categories.items()}
    boxes: dict[int, list[Floats | None]] = {}
    scores: dict[int, list[float]] = {}
    classes: dict[int, int] = {}
    for one in tracks:
        for k, object_id in enumerate(one.ids.tolist()):
            boxes.setdefault(object_id, [None] * frames)[one.frame_index] = one.boxes[k]
            scores.setdefault(object_id, []).append(float(one.scores[k]))
            if object_id not in classes:
                label = (one.labels[k] if one.labels else None) or ""
                number = int(label) if label.isdecimal() else numbers.get(label, -1)
                if number not in categories:
                    raise InputError(f"{where}: no category '{label}', which the tracker reports")
                classes[object_id] = number
    return [DetectedObject(classes[i], float(np.mean(scores[i])), tuple(boxes[i])) for i in sorted(boxes)]
