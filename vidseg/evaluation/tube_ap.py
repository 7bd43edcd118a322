"""Tube AP of YouTube-VIS (Yang et al., "Video Instance Segmentation", ICCV 2019, section 3) and AP^M, AP^B of HQ-YTVIS
(Ke et al., "Video Mask Transfiner", ECCV 2022, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg.errors import InputError
from vidseg.evaluation.average_precision import ApReport, Prediction, Truth, average_precision, check_options
from vidseg.evaluation.checks import (
    Row,
    check_annotation,
    check_known,
    is_number,
    read_ground_truth,
    read_mask,
    read_results,
    size_of,
)
from vidseg.evaluation.matching import Rules
from vidseg.evaluation.overlaps import Tube
from vidseg.masks.rle import area
from vidseg.text import whole

RANGES = ((0.0, 1e5**2), (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, 1e5**2))


@dataclass(frozen=True, slots=True)
class TubeApReport:
    """Mask AP, boundary AP when a ratio was asked for, and how they were computed."""

    mask: ApReport
    boundary: ApReport | None
    protocol: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class VideoSize:
    """The size of a video: height and width in pixels, length in annotated frames."""

    height: int
    width: int
    length: int


def evaluate_tubes(
    gt: Path,
    pred: Path,
    *,
    ratio: float | None = None,
    class_agnostic: bool = False,
    max_dets: Sequence[int] = (1, 10, 100),
    workers: int = 1,
) -> TubeApReport:
    """Tube AP of a YouTube-VIS results file against a YouTube-VIS or HQ-YTVIS ground truth.

    The area of a tube is its mean over the frames where it is not empty: from ``areas`` in the ground truth, from the
    masks in the results. ``ratio``: width of the boundary bands as a share of the diagonal, None for mask AP alone; the
    bands come from ``segmentations_refined`` where the ground truth has them, the mask IoU never does.

    Raises:
        InputError: whatever is wrong with the files, see :mod:`vidseg.evaluation.checks`.
        UsageError: a ratio outside (0, 1], or numbers of detections that do not ascend.
    """
    check_options(max_dets, ratio)
    data = read_ground_truth(gt, ("videos", "annotations", "categories"))
    if not data["categories"]:
        raise InputError(f"{gt}: 'categories' is empty")
    clips = {row["id"]: _clip(row, f"{gt}: video {row['id']}") for row in data["videos"]}
    categories = {row["id"]: str(row.get("name", row["id"])) for row in data["categories"]}
    truths = [_truth(row, clips, categories, f"{gt}: annotation {row['id']}") for row in data["annotations"]]
    rows = read_results(pred, "video_id", clips, categories)
    found = [_detection(row, clips, f"{pred}: result {place}") for place, row in enumerate(rows)]
    rules = Rules(RANGES, tuple(max_dets))
    reports = average_precision(
        truths,
        found,
        categories,
        rules,
        rules,
        ratio=ratio,
        class_agnostic=class_agnostic,
        crowd_by_detection=False,
        workers=workers,
    )
    boundary = None if ratio is None else f"min(mask IoU, band IoU), band of {ratio:g} of the diagonal, half to even"
    return TubeApReport(
        *reports,
        {
            "metric": "YouTube-VIS tube AP" + (", class-agnostic" if class_agnostic else ""),
            "videos": len(clips),
            "frames": sum(clip.length for clip in clips.values()),
            "objects": len(truths),
            "crowds": sum(t.crowd for t in truths),
            "detections": len(found),
            "categories": len(categories),
            "maxDets": list(max_dets),
            "iou": "0.50:0.05:0.95, pixels pooled over the frames",
            "areas": "small < 128^2 < medium < 256^2 < large pixels, mean over non-empty frames; both ends inside",
            "void": "crowds are ignored; their overlap is the plain tube IoU",
            "boundary": boundary or "none",
            "ratio": ratio,
        },
    )


def _clip(row: Row, where: str) -> VideoSize:
    length = whole(row.get("length"))
    if length is None or length < 1:
        raise InputError(f"{where} has length {row.get('length')!r}: a positive number of frames is expected")
    files = row.get("file_names")
    if isinstance(files, list) and len(files) != length:
        raise InputError(f"{where} has length {length} but {len(files)} file_names")
    return VideoSize(*size_of(row, where), length)


def _truth(row: Row, clips: Mapping[int, VideoSize], categories: Mapping[int, str], where: str) -> Truth:
    check_known(row, "video_id", clips, where)
    check_known(row, "category_id", categories, where)
    check_annotation(row, where)
    clip = clips[row["video_id"]]
    masks = _tube(row, "segmentations", clip, where, polygons=True)
    refined = row.get("segmentations_refined") is not None
    bands = _tube(row, "segmentations_refined", clip, where, polygons=True) if refined else masks
    areas: list[float | None] = []
    for value in _frames(row, "areas", clip, where):
        if value is not None and not (is_number(value) and value >= 0):
            raise InputError(f"{where}: 'areas' must hold finite numbers of at least 0, or null")
        areas.append(value)
    crowd = bool(row.get("iscrowd", 0))
    return Truth(row["id"], row["video_id"], row["category_id"], masks, bands, _mean_area(areas), crowd)


def _detection(row: Row, clips: Mapping[int, VideoSize], where: str) -> Prediction:
    masks = _tube(row, "segmentations", clips[row["video_id"]], where, polygons=False)
    areas = [None if rle is None else area(rle) for rle in masks]
    return Prediction(row["video_id"], row["category_id"], float(row["score"]), masks, _mean_area(areas))


def _mean_area(areas: Sequence[float | None]) -> float:
    seen = [value for value in areas if value]
    return float(np.mean(seen)) if seen else 0.0


def _frames(row: Row, key: str, clip: VideoSize, where: str) -> list[object]:
    values = row.get(key)
    if not isinstance(values, list) or len(values) != clip.length:
        got = f"{len(values)} entries" if isinstance(values, list) else "no list"
        raise InputError(f"{where}: '{key}' has {got}, but its video has {clip.length} frames (null where absent)")
    return values


def _tube(row: Row, key: str, clip: VideoSize, where: str, polygons: bool) -> Tube:
    size = (clip.height, clip.width)
    return tuple(
        None if value is None else read_mask(value, size, f"{where}, frame {t}", polygons)
        for t, value in enumerate(_frames(row, key, clip, where))
    )
