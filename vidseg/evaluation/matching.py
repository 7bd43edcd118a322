"""Greedy matching by score and interpolated precision, as COCO defines them; shared by images, tubes and LVIS.

The numbers are those of pycocotools' ``COCOeval`` (Lin et al., "Microsoft COCO", 2014); the loops over thresholds and
area ranges are array operations, and only the pairs of image and class that have something in them are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidseg.types import ShapeRepr

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALL_POINTS: Floats = np.linspace(0.0, 1.0, 101)
RANGE_NAMES = ("all", "small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Rules:
    """``ranges``: areas (low, high) called all, small, medium, large; both ends inside, unless ``open_top``.

    ``max_dets``: ascending numbers of detections per image and class; the last one counts for AP. ``flags``: objects
    the ground truth flags as ``ignore`` are ignored, else only crowds are.
    """

    ranges: tuple[tuple[float, float], ...]
    max_dets: tuple[int, ...] = (1, 10, 100)
    open_top: bool = False
    flags: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Case(ShapeRepr):
    """D detections, best score first, and G ground truths of class index ``category`` on one image or video.

    ``ious``: (D, G). ``unjudged``: detections that are ignored when unmatched (LVIS: class not annotated exhaustively).
    ``gt_ids``: annotation ids; a match with id 0 counts as no match, as in pycocotools (files with id 0 are refused).
    """

    category: int
    ious: Floats
    scores: Floats
    areas: Floats
    unjudged: Flags
    gt_ids: npt.NDArray[np.int64]
    gt_areas: Floats
    gt_ignore: Flags
    gt_crowd: Flags


@dataclass(frozen=True, slots=True)
class _Matched:
    scores: Floats  # (D,)
    hit: Flags  # (A, T, D): matched with a ground truth
    ignored: Flags  # (A, T, D): counts neither as right nor as wrong
    positives: npt.NDArray[np.int64]  # (A,): ground truths that count


@dataclass(frozen=True, slots=True, repr=False)
class Curves(ShapeRepr):
    """``precision``: (T, R, K, A, M), ``recall``: (T, K, A, M); -1 where a class has no ground truth in the range."""

    precision: Floats
    recall: Floats
    max_dets: tuple[int, ...]

    def ap(self, iou: float | None = None, area: str = "all", categories: Sequence[int] | None = None) -> float:
        """Mean precision at the largest number of detections, over all thresholds or at ``iou``; -1 without a class."""
        values = self.precision[..., RANGE_NAMES.index(area), -1]
        values = values if iou is None else values[np.isclose(IOU_THRESHOLDS, iou)]
        return _mean(values if categories is None else values[:, :, list(categories)])

    def ar(self, max_dets: int | None = None, area: str = "all") -> float:
        """Mean of the largest recall over all thresholds; -1 without a class."""
        place = -1 if max_dets is None else self.max_dets.index(max_dets)
        return _mean(self.recall[:, :, RANGE_NAMES.index(area), place])

    def stats(self) -> dict[str, float]:
        """The COCO table: AP, AP50, AP75, APs, APm, APl, AR at each number of detections, ARs, ARm, ARl."""
        return {
            "AP": self.ap(),
            "AP50": self.ap(0.5),
            "AP75": self.ap(0.75),
            "APs": self.ap(area="small"),
            "APm": self.ap(area="medium"),
            "APl": self.ap(area="large"),
            **{f"AR{m}": self.ar(m) for m in self.max_dets},
            "ARs": self.ar(area="small"),
            "ARm": self.ar(area="medium"),
            "ARl": self.ar(area="large"),
        }

    def of_category(self, index: int) -> Curves:
        """The curves of one class alone."""
        return Curves(self.precision[:, :, index : index + 1], self.recall[:, index : index + 1], self.max_dets)


def _mean(values: Floats) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def evaluate(cases: Sequence[Case], categories: int, rules: Rules) -> Curves:
    """Match every case and accumulate; cases of a class are taken in their order (ties of scores keep it)."""
    of_class: list[list[_Matched]] = [[] for _ in range(categories)]
    for case in cases:
        of_class[case.category].append(_match(case, rules))
    t, r, a, m = len(IOU_THRESHOLDS), len(RECALL_POINTS), len(rules.ranges), len(rules.max_dets)
    precision, recall = -np.ones((t, r, categories, a, m)), -np.ones((t, categories, a, m))
    for k, matched in enumerate(of_class):
        positives = np.sum([one.positives for one in matched], axis=0) if matched else np.zeros(a)
        for column, limit in enumerate(rules.max_dets):
            if not positives.any():
                continue
            scores = np.concatenate([one.scores[:limit] for one in matched])
            order = np.argsort(-scores, kind="mergesort")
            hit = np.concatenate([one.hit[..., :limit] for one in matched], axis=2)[..., order]
            counted = ~np.concatenate([one.ignored[..., :limit] for one in matched], axis=2)[..., order]
            right, wrong = np.cumsum(hit & counted, axis=2), np.cumsum(~hit & counted, axis=2)
            for row in np.nonzero(positives)[0]:
                for level in range(t):
                    curve = _interpolated(right[row, level], wrong[row, level], int(positives[row]))
                    precision[level, :, k, row, column], recall[level, k, row, column] = curve
    return Curves(precision, recall, rules.max_dets)


def _interpolated(right: npt.NDArray[np.int64], wrong: npt.NDArray[np.int64], positives: int) -> tuple[Floats, float]:
    """Precision at the recall points, made monotone from the right, and the final recall."""
    reached = np.zeros(len(RECALL_POINTS))
    if not len(right):
        return reached, 0.0
    recall = right / positives
    precision = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALL_POINTS, side="left")
    inside = places < len(envelope)
    reached[inside] = envelope[places[inside]]
    return reached, float(recall[-1])


def _outside(areas: Floats, rules: Rules) -> Flags:
    """(A, N): areas outside each range."""
    low, high = (np.array(side)[:, None] for side in zip(*rules.ranges, strict=True))
    return (areas < low) | ((areas >= high) if rules.open_top else (areas > high))


def _match(case: Case, rules: Rules) -> _Matched:
    """Each detection, best first, takes the free ground truth it overlaps most; one that counts goes before an ignored
    one, the last one wins a tie, and a crowd takes any number."""
    a, t, d, g = len(rules.ranges), len(IOU_THRESHOLDS), len(case.scores), len(case.gt_ids)
    ignore = case.gt_ignore | _outside(case.gt_areas, rules)  # (A, G)
    hit, ignored = np.zeros((a, t, d), bool), np.zeros((a, t, d), bool)
    wanted = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    taken = np.zeros((a, t, g), bool)
    rows, columns = np.ogrid[:a, :t]
    if g:
        for index in np.nonzero(case.ious.max(axis=1) >= wanted[0])[0]:
            overlap = case.ious[index]
            possible = (overlap >= wanted[:, None]) & (~taken | case.gt_crowd)
            first = np.where(possible & ~ignore[:, None], overlap, -1.0)
            value = np.where((first.max(axis=2) >= 0)[..., None], first, np.where(possible, overlap, -1.0))
            best = g - 1 - np.argmax(value[..., ::-1], axis=2)
            found = value.max(axis=2) >= 0
            hit[..., index] = found & (case.gt_ids[best] != 0)
            ignored[..., index] = found & ignore[rows, best]
            taken[rows, columns, best] |= found
    ignored |= ~hit & (case.unjudged | _outside(case.areas, rules))[:, None]
    return _Matched(case.scores, hit, ignored, (~ignore).sum(axis=1))
