"""Mask AP and boundary AP of COCO and UVO (Cheng et al., "Boundary IoU", CVPR 2021, section 5) and of LVIS.

LVIS (Gupta et al., CVPR 2019): at most 300 detections per image over all classes, no crowds; detections of classes that
an image is not annotated for are dropped, unmatched ones of classes that are not annotated exhaustively are ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg.errors import InputError
from vidseg.evaluation.average_precision import ApReport, Prediction, Truth, average_precision, check_options
from vidseg.evaluation.checks import (
    Row,
    area_of,
    check_annotation,
    check_known,
    names_of,
    read_ground_truth,
    read_mask,
    read_results,
    size_of,
)
from vidseg.evaluation.matching import Curves, Rules
from vidseg.masks.rle import area
from vidseg.text import whole

RANGES = ((0.0, 1e5**2), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2))
LVIS_PER_IMAGE = 300
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True, slots=True)
class ImageApReport:
    """Mask AP, boundary AP when a ratio was asked for, and how they were computed.

    ``frequency``: LVIS only, the places of the rare, common and frequent classes among all.
    """

    mask: ApReport
    boundary: ApReport | None
    protocol: Mapping[str, object]
    frequency: Mapping[str, Sequence[int]] | None = None

    def stats(self, report: ApReport) -> dict[str, float]:
        """The table of one of the two, named as the data set names it."""
        if self.frequency is None:
            return report.curves.stats()
        return _lvis_stats(report.curves, self.frequency)


def evaluate_coco(
    gt: Path,
    pred: Path,
    *,
    ratio: float | None = None,
    class_agnostic: bool = False,
    max_dets: Sequence[int] = (1, 10, 100),
    workers: int = 1,
) -> ImageApReport:
    """AP of COCO results (run-lengths) against a COCO ground truth; UVO is ``class_agnostic``.

    ``ratio``: width of the bands as a share of the diagonal; None for mask AP alone.

    Raises:
        InputError: whatever is wrong with the files, see :mod:`vidseg.evaluation.checks`.
        UsageError: a ratio outside (0, 1], or numbers of detections that do not ascend.
    """
    check_options(max_dets, ratio)
    data = read_ground_truth(gt, ("images", "annotations", "categories"))
    sizes, categories = _sizes(data["images"], gt), _names(data["categories"], gt)
    truths = _truths(data["annotations"], sizes, categories, gt)
    found = _detections(read_results(pred, "image_id", sizes, categories, names_of(data["images"])), sizes, pred)
    rules = Rules(RANGES, tuple(max_dets))
    reports = average_precision(
        truths,
        found,
        categories,
        rules,
        replace(rules, flags=True),
        ratio=ratio,
        class_agnostic=class_agnostic,
        crowd_by_detection=True,
        workers=workers,
    )
    protocol = {
        "metric": "COCO AP" + (", class-agnostic" if class_agnostic else ""),
        "images": len(sizes),
        "objects": len(truths),
        "crowds": sum(t.crowd for t in truths),
        "detections": len(found),
        "categories": len(categories),
        "maxDets": list(max_dets),
        **_common_protocol(ratio, "both ends inside", "are ignored; their overlap is a share of the detection"),
    }
    return ImageApReport(*reports, protocol)


def evaluate_lvis(gt: Path, pred: Path, *, ratio: float | None = None, workers: int = 1) -> ImageApReport:
    """AP of LVIS results (run-lengths) against an LVIS v1 ground truth.

    ``ratio``: as in :func:`evaluate_coco`. The upper end of an area range is inside for masks (the ``lvis`` package)
    and outside for boundaries (the boundary IoU authors' code), as in the published numbers of each.

    Raises:
        InputError: whatever is wrong with the files, see :mod:`vidseg.evaluation.checks`.
        UsageError: a ratio outside (0, 1].
    """
    check_options((LVIS_PER_IMAGE,), ratio)
    data = read_ground_truth(gt, ("images", "annotations", "categories"))
    sizes, categories = _sizes(data["images"], gt), _names(data["categories"], gt)
    frequency = _frequencies(data["categories"], gt)
    truths = _truths(data["annotations"], sizes, categories, gt, crowds=False)
    negative = _image_lists(data["images"], "neg_category_ids", categories, gt)
    partly = _image_lists(data["images"], "not_exhaustive_category_ids", categories, gt)
    for truth in truths:
        negative[truth.place].add(truth.category)  # from here on: the classes the image is annotated for
    found = _detections(read_results(pred, "image_id", sizes, categories, names_of(data["images"])), sizes, pred)
    of_image: dict[int, list[Prediction]] = defaultdict(list)
    for one in found:
        of_image[one.place].append(one)
    judged = [
        replace(one, unjudged=one.category in partly[place])
        for place, ones in of_image.items()
        for one in sorted(ones, key=lambda d: -d.score)[:LVIS_PER_IMAGE]
        if one.category in negative[place]
    ]
    mask_rules = Rules(RANGES, (LVIS_PER_IMAGE,), flags=True)
    reports = average_precision(
        truths,
        judged,
        categories,
        mask_rules,
        replace(mask_rules, open_top=True),
        ratio=ratio,
        class_agnostic=False,
        crowd_by_detection=False,
        workers=workers,
    )
    protocol = {
        "metric": "LVIS v1 AP (not 'fixed AP')",
        "images": len(sizes),
        "objects": len(truths),
        "detections": len(found),
        "detections used": len(judged),
        "categories": len(categories),
        "maxDets": f"{LVIS_PER_IMAGE} per image over all classes",
        **_common_protocol(ratio, "upper end inside for masks, outside for boundaries", "do not exist in LVIS"),
    }
    return ImageApReport(*reports, protocol, frequency)


def _common_protocol(ratio: float | None, ends: str, crowd: str) -> dict[str, object]:
    boundary = None if ratio is None else f"min(mask IoU, band IoU), band of {ratio:g} of the diagonal, half to even"
    return {
        "iou": "0.50:0.05:0.95",
        "areas": f"small < 32^2 < medium < 96^2 < large pixels; {ends}",
        "void": f"crowds {crowd}",
        "boundary": boundary or "none",
        "ratio": ratio,
    }


def _lvis_stats(curves: Curves, frequency: Mapping[str, Sequence[int]]) -> dict[str, float]:
    table = curves.stats()
    del table[f"AR{LVIS_PER_IMAGE}"], table["ARs"], table["ARm"], table["ARl"]
    table.update({f"AP{name}": curves.ap(categories=places) for name, places in frequency.items()})
    for key, name in (("AR", "all"), ("ARs", "small"), ("ARm", "medium"), ("ARl", "large")):
        table[f"{key}@{LVIS_PER_IMAGE}"] = curves.ar(area=name)
    return table


def _sizes(images: Sequence[Row], path: Path) -> dict[int, tuple[int, int]]:
    return {row["id"]: size_of(row, f"{path}: image {row['id']}") for row in images}


def _names(categories: Sequence[Row], path: Path) -> dict[int, str]:
    if not categories:
        raise InputError(f"{path}: 'categories' is empty")
    return {row["id"]: str(row.get("name", row["id"])) for row in categories}


def _frequencies(categories: Sequence[Row], path: Path) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {name: [] for name in FREQUENCIES}
    for place, row in enumerate(sorted(categories, key=lambda row: row["id"])):
        if row.get("frequency") not in places:
            raise InputError(
                f"{path}: category {row['id']} has frequency {row.get('frequency')!r}: r, c or f is expected"
            )
        places[row["frequency"]].append(place)
    return places


def _image_lists(images: Sequence[Row], key: str, categories: Mapping[int, str], path: Path) -> dict[int, set[int]]:
    lists = {}
    for row in images:
        values = row.get(key)
        numbers = [whole(value) for value in values] if isinstance(values, list) else [None]
        known = {number for number in numbers if number is not None and number in categories}
        if not all(number in known for number in numbers):
            raise InputError(f"{path}: image {row['id']}: '{key}' must be a list of known category ids (LVIS v1)")
        lists[row["id"]] = known
    return lists


def _truths(
    rows: Sequence[Row],
    sizes: Mapping[int, tuple[int, int]],
    categories: Mapping[int, str],
    path: Path,
    crowds: bool = True,
) -> list[Truth]:
    truths = []
    for row in rows:
        where = f"{path}: annotation {row['id']}"
        check_known(row, "image_id", sizes, where)
        check_known(row, "category_id", categories, where)
        check_annotation(row, where)
        masks = (read_mask(row.get("segmentation"), sizes[row["image_id"]], where, polygons=True),)
        crowd, ignore = crowds and bool(row.get("iscrowd", 0)), bool(row.get("ignore", 0))
        size = area_of(row, where)
        truths.append(Truth(row["id"], row["image_id"], row["category_id"], masks, masks, size, crowd, ignore))
    return truths


def _detections(rows: Sequence[Row], sizes: Mapping[int, tuple[int, int]], path: Path) -> list[Prediction]:
    found = []
    for place, row in enumerate(rows):
        mask = read_mask(row.get("segmentation"), sizes[row["image_id"]], f"{path}: result {place}", polygons=False)
        found.append(Prediction(row["image_id"], row["category_id"], float(row["score"]), (mask,), float(area(mask))))
    return found
