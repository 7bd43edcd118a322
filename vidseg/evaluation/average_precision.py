"""From checked ground truth and results to AP: groups by image and class, overlaps (in parallel), matching, details."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from vidseg.errors import UsageError
from vidseg.evaluation.matching import Case, Curves, Rules, evaluate
from vidseg.evaluation.overlaps import Comparison, Matrix, Tube, both_overlaps, mask_overlaps
from vidseg.evaluation.parallel import run_all
from vidseg.masks.boundary import band_width

ALL_CLASSES = 0
"""The one class id of a class-agnostic evaluation."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A ground-truth object on image or video ``place``; ``bands`` as in :class:`.Comparison`."""

    id: int
    place: int
    category: int
    masks: Tube
    bands: Tube
    area: float
    crowd: bool = False
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """A result on image or video ``place``; ``unjudged``: ignored when it is not matched."""

    place: int
    category: int
    score: float
    masks: Tube
    area: float
    unjudged: bool = False


@dataclass(frozen=True, slots=True)
class Miss:
    """How well a ground-truth object was found: the best overlap any detection of its class has with it."""

    place: int
    annotation: int
    category: int
    overlap: float


@dataclass(frozen=True, slots=True)
class ApReport:
    """Curves of one kind of overlap over ``categories`` (id to name, in their order), and the objects found worst."""

    curves: Curves
    categories: Mapping[int, str]
    worst: tuple[Miss, ...]

    def per_category(self) -> dict[str, dict[str, object]]:
        """The COCO table of every class that has ground truth, by id."""
        rows: dict[str, dict[str, object]] = {}
        for index, (category, name) in enumerate(self.categories.items()):
            if (self.curves.recall[:, index] > -1).any():
                rows[str(category)] = {"name": name, **self.curves.of_category(index).stats()}
        return rows


def check_options(max_dets: Sequence[int], ratio: float | None) -> None:
    """Check the numbers of detections and the ratio of the bands.

    Raises:
        UsageError: numbers that are not positive and ascending, or a ratio outside (0, 1].
    """
    if not max_dets or max_dets[0] < 1 or any(a >= b for a, b in pairwise(max_dets)):
        raise UsageError(f"max-dets {' '.join(map(str, max_dets))}: expected positive, ascending numbers, as 1 10 100")
    if ratio is not None:
        band_width(1, 1, ratio)


def average_precision(
    truths: Sequence[Truth],
    detections: Sequence[Prediction],
    categories: Mapping[int, str],
    mask_rules: Rules,
    boundary_rules: Rules,
    *,
    ratio: float | None,
    class_agnostic: bool,
    crowd_by_detection: bool,
    workers: int,
) -> tuple[ApReport, ApReport | None]:
    """(mask AP, boundary AP): the second with bands of ``ratio`` of the diagonal, or None when ``ratio`` is None.

    ``categories``: id to name of all classes. ``class_agnostic``: all objects are taken as one class.
    """
    order = dict.fromkeys(sorted(categories))
    rank = {category: k for k, category in enumerate(order)}
    limit = mask_rules.max_dets[-1]
    grouped: dict[tuple[int, int], tuple[list[Truth], list[Prediction]]] = defaultdict(lambda: ([], []))
    for truth in sorted(truths, key=lambda t: rank[t.category]):
        grouped[truth.place, ALL_CLASSES if class_agnostic else rank[truth.category]][0].append(truth)
    for found in sorted(detections, key=lambda d: rank[d.category]):
        grouped[found.place, ALL_CLASSES if class_agnostic else rank[found.category]][1].append(found)
    keys = sorted(grouped)
    for key in keys:
        grouped[key] = (grouped[key][0], sorted(grouped[key][1], key=lambda d: -d.score)[:limit])
    groups = [_group(*grouped[key], crowd_by_detection) for key in keys]
    names = {ALL_CLASSES: "all classes"} if class_agnostic else {category: categories[category] for category in order}
    work: Callable[[Comparison], tuple[Matrix, ...]] = (
        _only_masks if ratio is None else partial(both_overlaps, ratio=ratio)
    )
    overlaps = list(run_all(work, groups, workers))
    reports = []
    for kind, rules in enumerate((mask_rules, boundary_rules)[: 1 if ratio is None else 2]):
        cases = [
            _case(key[1], *grouped[key], matrices[kind], rules.flags)
            for key, matrices in zip(keys, overlaps, strict=True)
        ]
        worst = _worst([grouped[key][0] for key in keys], [matrices[kind] for matrices in overlaps])
        reports.append(ApReport(evaluate(cases, len(names), rules), names, worst))
    return reports[0], reports[1] if ratio is not None else None


def _only_masks(group: Comparison) -> tuple[Matrix, ...]:
    return (mask_overlaps(group),)


def _group(truths: Sequence[Truth], detections: Sequence[Prediction], crowd_by_detection: bool) -> Comparison:
    return Comparison(
        tuple(d.masks for d in detections),
        tuple(t.masks for t in truths),
        tuple(t.bands for t in truths),
        tuple(t.crowd for t in truths),
        crowd_by_detection,
    )


def _case(category: int, truths: Sequence[Truth], detections: Sequence[Prediction], ious: Matrix, flags: bool) -> Case:
    return Case(
        category=category,
        ious=ious,
        scores=np.array([d.score for d in detections], float),
        areas=np.array([d.area for d in detections], float),
        unjudged=np.array([d.unjudged for d in detections], bool),
        gt_ids=np.array([t.id for t in truths], np.int64),
        gt_areas=np.array([t.area for t in truths], float),
        gt_ignore=np.array([t.crowd or (flags and t.ignore) for t in truths], bool),
        gt_crowd=np.array([t.crowd for t in truths], bool),
    )


def _worst(truths: Sequence[Sequence[Truth]], overlaps: Sequence[Matrix], count: int = 10) -> tuple[Miss, ...]:
    found = [
        Miss(truth.place, truth.id, truth.category, float(matrix[:, column].max(initial=0.0)))
        for group, matrix in zip(truths, overlaps, strict=True)
        for column, truth in enumerate(group)
        if not truth.crowd and not truth.ignore
    ]
    return tuple(sorted(found, key=lambda miss: miss.overlap)[:count])
