"""Boxes of any detector or tracker, read from the common file formats into one form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import InputError
from vidseg.masks.rle import bbox, from_coco
from vidseg.outputs.journal import read_journal

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Detection:
    """One box (XYXY, right and bottom exclusive) on one frame; ``object_id`` is None where the file has no ids."""

    frame_index: int
    box: Box
    score: float = 1.0
    object_id: int | None = None
    label: str | None = None


def read_boxes(path: Path, *, first_frame: int | None = None, video_id: int | None = None) -> list[Detection]:
    """Read COCO results (.json), YouTube-VIS results (.json), MOT text (.txt, .csv) or a journal (.jsonl).

    Args:
        path: the file; json formats are told apart by what they hold.
        first_frame: the number that the file gives to the video's first frame. Default: 1 for MOT, 0 for COCO; unused
            where the order of frames is explicit (an ``images`` list, YouTube-VIS, a journal).
        video_id: which video of a YouTube-VIS file; needed when it holds several.

    Raises:
        InputError: missing or malformed; the message names the file and the line or entry.
    """
    try:
        if path.suffix == ".jsonl":
            detections = _journal(path)
        elif path.suffix in (".txt", ".csv"):
            detections = _mot(path, 1 if first_frame is None else first_frame)
        else:
            detections = _json(path, first_frame or 0, video_id)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    _check_ids(path, detections)
    return detections


def _journal(path: Path) -> list[Detection]:
    return [
        Detection(masks.frame_index, _box(box), float(score), object_id, label)
        for masks in read_journal(path)
        for object_id, box, score, label in zip(masks.ids, masks.boxes, masks.scores, masks.labels, strict=True)
        if box[2] > box[0]
    ]


def _mot(path: Path, first_frame: int) -> list[Detection]:
    """``frame, id, left, top, width, height[, confidence[, class, ...]]``; -1 as id or confidence means none."""
    detections = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            fields = line.replace(",", " ").split()
            if not fields or fields[0].startswith("#"):
                continue
            try:
                frame, object_id, *numbers = (float(field) for field in fields[:8])
                left, top, width, height, *rest = numbers
                detections.append(
                    Detection(
                        _frame(int(frame) - first_frame),
                        _box((left, top, left + width, top + height)),
                        rest[0] if rest and rest[0] >= 0 else 1.0,
                        int(object_id) if object_id > 0 else None,
                        f"{rest[1]:g}" if len(rest) > 1 and rest[1] > 0 else None,
                    )
                )
            except (ValueError, OverflowError) as error:
                raise InputError(
                    f"{path}, line {number}: 'frame,id,left,top,width,height,confidence' wanted ({error})"
                ) from error
    return detections


def _json(path: Path, first_frame: int, video_id: int | None) -> list[Detection]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not json ({error})") from error
    entries = data.get("annotations", data.get("detections")) if isinstance(data, dict) else data
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: a list of results, or an object with "annotations", wanted')
    document: Mapping[str, Any] = data if isinstance(data, dict) else {}
    try:
        names = {c["id"]: str(c["name"]) for c in document.get("categories", []) if "id" in c and "name" in c}
        order = {image.get("id"): index for index, image in enumerate(document.get("images") or [])}
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path}: 'categories' and 'images' must be lists of objects with an 'id'") from error
    if any("segmentations" in entry or "bboxes" in entry for entry in entries):
        return _ytvis(path, entries, names, video_id)
    return [_coco_entry(path, k, entry, names, order, first_frame) for k, entry in enumerate(entries)]


def _coco_entry(
    path: Path,
    number: int,
    entry: Mapping[str, Any],
    names: Mapping[Any, str],
    order: Mapping[Any, int],
    first_frame: int,
) -> Detection:
    try:
        image = entry["image_id"]
        if order and image not in order:
            raise ValueError(f"image_id {image!r} is not in the images list")
        frame = order[image] if order else int(image) - first_frame
        box = _xywh(entry["bbox"]) if "bbox" in entry else _box(bbox(from_coco(entry["segmentation"])))
        track = entry.get("track_id", entry.get("instance_id"))
        return Detection(
            _frame(frame),
            box,
            float(entry.get("score", 1.0)),
            None if track is None else int(track),
            _label(entry, names),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}, entry {number}: {_reason(error)}") from error


def _ytvis(
    path: Path, entries: Iterable[Mapping[str, Any]], names: Mapping[Any, str], video_id: int | None
) -> list[Detection]:
    videos = {entry.get("video_id") for entry in entries}
    if video_id is not None:
        if video_id not in videos:
            raise InputError(
                f"{path}: no video {video_id}; it holds {', '.join(map(str, sorted(videos, key=str)))[:80]}"
            )
        videos = {video_id}
    if len(videos) > 1:
        raise InputError(f"{path}: holds {len(videos)} videos; choose one with the tracker option video_id")
    detections = []
    for number, entry in enumerate(entries):
        if entry.get("video_id") not in videos:
            continue
        try:
            object_id, score = int(entry.get("id", number + 1)), float(entry.get("score", 1.0))
            if entry.get("bboxes") is not None:
                boxes = [None if b is None else _xywh(b) for b in entry["bboxes"]]
            else:
                boxes = [None if s is None else _box(bbox(from_coco(s))) for s in entry["segmentations"]]
            label = _label(entry, names)
            detections += [Detection(k, b, score, object_id, label) for k, b in enumerate(boxes) if b and b[2] > b[0]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}, entry {number}: {_reason(error)}") from error
    return detections


def _check_ids(path: Path, detections: Iterable[Detection]) -> None:
    """Ids are all there or all missing, positive, and once per frame."""
    seen: set[tuple[int, int]] = set()
    with_id = without_id = 0
    for detection in detections:
        if detection.object_id is None:
            without_id += 1
            continue
        with_id += 1
        key = detection.frame_index, detection.object_id
        if detection.object_id < 1:
            raise InputError(f"{path}: object id {detection.object_id} on frame {key[0]}: ids must be positive")
        if key in seen:
            raise InputError(f"{path}: object {key[1]} has two boxes on frame {key[0]}")
        seen.add(key)
    if with_id and without_id:
        raise InputError(f"{path}: {with_id} boxes have ids and {without_id} have none; give ids to all or to none")


def _label(entry: Mapping[str, Any], names: Mapping[Any, str]) -> str | None:
    category = entry.get("category_id")
    return None if category is None else names.get(category, str(category))


def _frame(index: int) -> int:
    if index < 0:
        raise ValueError(f"frame {index} after subtracting first_frame; the first frame is 0")
    return index


def _xywh(values: Any) -> Box:
    left, top, width, height = (float(v) for v in values)
    return _box((left, top, left + width, top + height))


def _box(values: Any) -> Box:
    x1, y1, x2, y2 = (float(v) for v in values)
    if not np.isfinite([x1, y1, x2, y2]).all() or x2 < x1 or y2 < y1:
        raise ValueError(f"box {x1:g},{y1:g},{x2:g},{y2:g}: finite numbers, width and height not negative wanted")
    return x1, y1, x2, y2


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
