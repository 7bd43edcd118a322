"""AP of tubes, images and LVIS: the reference numbers, pycocotools on random cases, and every edge case."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pytest import approx

from eval_media import (
    expected,
    image_result,
    image_truth,
    rle,
    square,
    tube_result,
    tube_truth,
    unpack,
    write,
)
from vidseg.errors import UsageError
from vidseg.evaluation.image_ap import RANGES, evaluate_coco, evaluate_lvis
from vidseg.evaluation.matching import Case, Curves, Rules, evaluate
from vidseg.evaluation.tube_ap import TubeApReport, evaluate_tubes


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracles")
    for name in ("ytvis", "ytvis_annotation_id_zero", "hq_ytvis", "coco_boundary", "lvis_boundary"):
        unpack(name, folder)
    return folder


def same_curves(report: Any, want: dict[str, Any]) -> None:
    """The table, and precision and recall of every class at every threshold and area."""
    assert report.curves.stats() == approx(want["stats"], abs=1e-9)
    for index, category in enumerate(report.categories):
        row = want["per_category"].get("-1" if len(report.categories) == 1 else str(category))
        if row is None:
            continue
        precision = report.curves.precision[:, :, index, :, -1]
        flat = np.array(row.get("AP_by_iou_area", row.get("AP_by_area_iou")))
        np.testing.assert_allclose(precision.mean(axis=1).T, flat, atol=1e-9)
        recall = np.array(row.get("recall_by_maxdet_iou(area=all)", row.get("recall_by_maxdet_iou")))
        np.testing.assert_allclose(report.curves.recall[:, index, 0, :].T, recall, atol=1e-9)


@pytest.mark.parametrize("agnostic", [False, True])
def test_tubes_equal_the_official_numbers(oracles: Path, agnostic: bool) -> None:
    key = "class_agnostic" if agnostic else "default"
    ytvis, hq = oracles / "ytvis", oracles / "hq_ytvis"
    plain = evaluate_tubes(ytvis / "gt.json", ytvis / "results.json", class_agnostic=agnostic)
    same_curves(plain.mask, expected(ytvis)[key])
    both = evaluate_tubes(
        hq / "gt.json", hq / "results.json", ratio=0.02, class_agnostic=agnostic, workers=1 + agnostic
    )
    assert both.boundary is not None
    same_curves(both.mask, expected(hq)["tube_mask"][key])
    same_curves(both.boundary, expected(hq)["tube_boundary"][key])


@pytest.mark.parametrize("kind", ["ytvis", "tube_mask", "tube_boundary"])
def test_tube_overlaps_equal_the_official_ones(oracles: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overlap of every result with every object, as the matching sees it."""
    import vidseg.evaluation.average_precision as module

    seen: list[Case] = []
    monkeypatch.setattr(module, "evaluate", lambda cases, *rest: seen.extend(cases) or evaluate(cases, *rest))
    folder = oracles / ("ytvis" if kind == "ytvis" else "hq_ytvis")
    evaluate_tubes(folder / "gt.json", folder / "results.json", ratio=0.02)
    cases = seen[: len(seen) // 2] if kind != "tube_boundary" else seen[len(seen) // 2 :]
    truth, want = json.loads((folder / "gt.json").read_text()), expected(folder)
    rank = {category: k for k, category in enumerate(sorted(row["id"] for row in truth["categories"]))}
    for key, matrix in (want if kind == "ytvis" else want[kind])["default"]["tube_iou"].items():
        mine = [case.ious for case in cases if case.category == rank[int(key.split(",")[1])]]
        wanted = np.array(matrix)
        assert any(m.shape == wanted.shape and np.abs(m - wanted).max(initial=0) <= 1e-12 for m in mine), key


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("ratio", [None, 0.02, 0.01])
def test_coco_equals_the_reference_numbers(oracles: Path, ratio: float | None, agnostic: bool) -> None:
    folder = oracles / "coco_boundary"
    report = evaluate_coco(folder / "gt.json", folder / "results.json", ratio=ratio, class_agnostic=agnostic)
    want, key = expected(folder), "class_agnostic" if agnostic else "default"
    same_curves(report.mask, want["segm"][key])
    if ratio is not None:
        assert report.boundary is not None
        same_curves(report.boundary, want[f"boundary_{ratio}"][key])


@pytest.mark.parametrize("ratio", [None, 0.02, 0.01])
def test_lvis_equals_the_reference_numbers(oracles: Path, ratio: float | None) -> None:
    folder = oracles / "lvis_boundary"
    report = evaluate_lvis(folder / "gt.json", folder / "results.json", ratio=ratio)
    want = expected(folder)
    for part, key in ((report.mask, "segm"), (report.boundary, f"boundary_{ratio}")):
        if part is None:
            continue
        assert report.stats(part) == approx(want[key]["results"], abs=1e-9)
        for index, category in enumerate(part.categories):
            row = want[key]["per_category"].get(str(category))
            if row:
                precision = part.curves.precision[:, :, index, :, -1].mean(axis=1).T
                np.testing.assert_allclose(precision, row["AP_by_area_iou"], atol=1e-9)


def test_a_match_with_annotation_id_0_counts_as_none(oracles: Path, tmp_path: Path) -> None:
    """Why files with id 0 are refused: the matching has the references' quirk, ids from 1 on give the right number."""
    folder = oracles / "ytvis_annotation_id_zero"
    truth = json.loads((folder / "gt.json").read_text())
    for row in truth["annotations"]:
        row["id"] += 1
    right = evaluate_tubes(write(tmp_path / "gt.json", truth), folder / "results.json").mask.curves.stats()
    ious = np.array(expected(folder)["default"]["tube_iou"]["1,1"])
    results = sorted(json.loads((folder / "results.json").read_text()), key=lambda row: -row["score"])
    case = Case(
        category=0,
        ious=ious,
        scores=np.array([row["score"] for row in results]),
        areas=np.full(len(results), 300.0),
        unjudged=np.zeros(len(results), bool),
        gt_ids=np.array([0, 1]),
        gt_areas=np.full(2, 300.0),
        gt_ignore=np.zeros(2, bool),
        gt_crowd=np.zeros(2, bool),
    )
    quirk = evaluate([case], 1, Rules(RANGES)).stats()
    want = expected(folder)["default"]["stats"]
    assert {k: quirk[k] for k in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")} == approx(
        {k: want[k] for k in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")}, abs=1e-9
    )
    assert right["AP"] > quirk["AP"] + 0.1


def _random_set(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Squares of few sizes and scores, so that overlaps and scores tie; crowds, odd areas, classes without objects."""
    truth = image_truth([])
    truth["images"] = [{"id": 3 * k + 1, "height": 100, "width": 100} for k in range(4)]
    truth["categories"] = [{"id": k, "name": str(k)} for k in (7, 2, 5)]
    results = []
    for _ in range(40):
        y, x, side = rng.integers(0, 50), rng.integers(0, 50), int(rng.choice([8, 32, 33, 48]))
        mask = square((100, 100), y, x, side)
        row = {
            "image_id": int(rng.choice([1, 4, 7])),
            "category_id": int(rng.choice([7, 2])),
            "segmentation": rle(mask),
        }
        area = float(rng.choice([mask.sum(), 32**2, 96**2]))
        crowd = int(rng.random() < 0.15)
        truth["annotations"].append({**row, "id": len(truth["annotations"]) + 1, "iscrowd": crowd, "area": area})
        for _ in range(rng.integers(0, 5)):
            shift = rng.integers(-3, 4, 2)
            moved = square((100, 100), max(0, y + shift[0]), max(0, x + shift[1]), side)
            score = float(rng.choice([0.1, 0.3, 0.5, 0.9]))
            results.append({**row, "segmentation": rle(moved), "score": score})
    return truth, results


def _pycocotools(gt: Path, pred: Path, agnostic: bool, max_dets: list[int]) -> Curves:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(gt))
        other = COCOeval(coco, coco.loadRes(str(pred)), "segm")
        other.params.useCats, other.params.maxDets = int(not agnostic), max_dets
        other.evaluate()
        other.accumulate()
    return Curves(other.eval["precision"], other.eval["recall"], tuple(max_dets))


@pytest.mark.parametrize("seed", range(6))
def test_random_sets_equal_pycocotools(tmp_path: Path, seed: int) -> None:
    truth, results = _random_set(np.random.default_rng(seed))
    gt, pred = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", results)
    agnostic, max_dets = bool(seed % 2), [[1, 10, 100], [1, 2, 5]][seed % 3 % 2]
    ours = evaluate_coco(gt, pred, class_agnostic=agnostic, max_dets=max_dets).mask.curves
    other = _pycocotools(gt, pred, agnostic, max_dets)
    assert np.array_equal(ours.precision, other.precision)
    assert np.array_equal(ours.recall, other.recall)
    assert (ours.precision > 0).any()


def _tubes(folder: Path, truth: Any, results: Any, **options: Any) -> TubeApReport:
    return evaluate_tubes(write(folder / "gt.json", truth), write(folder / "pred.json", results), **options)


def test_tube_frames_pool_before_the_division(tmp_path: Path) -> None:
    mask = square((40, 60), 10, 10, 10)
    half = mask.copy()
    half[10:15] = 0
    truth = tube_truth()
    report = _tubes(tmp_path, truth, [tube_result(segmentations=[rle(mask), None])])
    assert report.mask.worst[0].overlap == 100 / 200  # an absent frame adds the other side's area to the union
    report = _tubes(tmp_path, truth, [tube_result(segmentations=[rle(half), rle(mask)])])
    assert report.mask.worst[0].overlap == 150 / 200
    empty = rle(np.zeros((40, 60)))
    truth = tube_truth(segmentations=[empty, None], areas=[None, 0])
    report = _tubes(tmp_path, truth, [tube_result(segmentations=[None, empty])])
    assert report.mask.worst[0].overlap == 0  # two empty tubes


def test_area_of_a_tube(tmp_path: Path) -> None:
    """Ground truth: mean of the json areas that are not zero; exactly 128^2 lies in two ranges."""
    truth = tube_truth(areas=[128**2, 0])
    stats = _tubes(tmp_path, truth, [tube_result()]).mask.curves.stats()
    assert (stats["APs"], stats["APm"], stats["APl"]) == approx((1, 1, -1))
    stats = _tubes(tmp_path, tube_truth(areas=[None, 128**2 + 1]), [tube_result()]).mask.curves.stats()
    assert (stats["APs"], stats["APm"], stats["APl"]) == approx((-1, 1, -1))


def test_crowd_tubes_have_plain_overlaps_and_take_many(tmp_path: Path) -> None:
    big = square((40, 60), 5, 5, 20)
    truth = tube_truth()
    crowd = {**truth["annotations"][0], "id": 2, "iscrowd": 1, "segmentations": [rle(big)] * 2, "areas": [400, 400]}
    truth["annotations"].append(crowd)
    inside = square((40, 60), 6, 6, 5)
    most = square((40, 60), 5, 5, 18)
    right = tube_result(score=0.1)
    many = [tube_result(score=0.9, segmentations=[rle(most)] * 2)] * 3
    assert _tubes(tmp_path, truth, [*many, right]).mask.curves.ap(0.5) == approx(1)  # all three fall to the crowd
    wrong = tube_result(score=0.9, segmentations=[rle(inside)] * 2)  # 25/400 of the union, though all inside
    assert _tubes(tmp_path, truth, [wrong, right]).mask.curves.ap(0.5) == approx(0.5)


def test_class_and_video_without_objects(tmp_path: Path) -> None:
    truth = tube_truth()
    truth["videos"].append({"id": 2, "height": 40, "width": 60, "length": 2})
    other_class = tube_result(category_id=2, score=0.9)
    assert _tubes(tmp_path, truth, [tube_result(), other_class]).mask.curves.ap() == approx(1)
    other_video = tube_result(video_id=2, score=0.9)  # a false positive
    assert _tubes(tmp_path, truth, [tube_result(), other_video]).mask.curves.ap() == approx(0.5)
    assert _tubes(tmp_path, truth, []).mask.curves.ap() == 0


def test_max_dets_without_100(tmp_path: Path) -> None:
    results = [tube_result(score=0.9, segmentations=[None, None]), tube_result(score=0.1)]
    stats = _tubes(tmp_path, tube_truth(), results, max_dets=(1, 2)).mask.curves.stats()
    assert (stats["AP"], stats["AR1"], stats["AR2"]) == (approx(0.5), 0, 1)
    for wrong in ((), (0, 1), (10, 1), (1, 1)):
        with pytest.raises(UsageError, match="max-dets"):
            _tubes(tmp_path, tube_truth(), results, max_dets=wrong)


def test_boundary_needs_no_size_in_results_and_any_ratio_is_consistent(tmp_path: Path) -> None:
    truth = tube_truth(segmentations=[rle(square((40, 60), 5, 5, 30)), None], areas=[900, None])
    result = tube_result(segmentations=[rle(square((40, 60), 5, 5, 30)), None])
    for ratio in (0.01, 0.02, 0.3):
        report = _tubes(tmp_path, truth, [result], ratio=ratio)
        assert report.boundary is not None
        assert report.boundary.curves.ap() == approx(1)
    near = tube_result(segmentations=[rle(square((40, 60), 6, 6, 30)), None])
    wide, strict = (_tubes(tmp_path, truth, [near], ratio=r).boundary for r in (0.1, 0.01))
    assert wide is not None and strict is not None
    assert wide.worst[0].overlap > strict.worst[0].overlap
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="ratio"):
            _tubes(tmp_path, truth, [result], ratio=wrong)


def test_bands_come_from_refined_masks(tmp_path: Path) -> None:
    rough, fine = square((40, 60), 5, 5, 20), square((40, 60), 5, 5, 21)
    truth = tube_truth(segmentations=[rle(rough)] * 2, segmentations_refined=[rle(fine)] * 2, areas=[400, 400])
    report = _tubes(tmp_path, truth, [tube_result(segmentations=[rle(fine)] * 2)], ratio=0.02)
    assert report.boundary is not None
    assert report.mask.worst[0].overlap == report.boundary.worst[0].overlap == 400 / 441  # the bands alone are equal
    report = _tubes(tmp_path, truth, [tube_result(segmentations=[rle(rough)] * 2)], ratio=0.02)
    assert report.boundary is not None
    assert report.mask.worst[0].overlap == 1 > report.boundary.worst[0].overlap


def _coco(folder: Path, truth: Any, results: Any, **options: Any) -> Any:
    return evaluate_coco(write(folder / "gt.json", truth), write(folder / "pred.json", results), **options)


def test_image_crowds_keep_the_share_of_the_detection(tmp_path: Path) -> None:
    """A detection inside a crowd is ignored, in mask AP and in boundary AP, where its bands hardly meet."""
    crowd, inside, found = square((100, 100), 0, 0, 60), square((100, 100), 20, 20, 10), square((100, 100), 70, 70, 20)
    truth = image_truth([{"segmentation": rle(found)}, {"segmentation": rle(crowd), "iscrowd": 1}])
    report = _coco(tmp_path, truth, [image_result(inside, 0.9), image_result(found, 0.5)], ratio=0.02)
    assert (report.mask.curves.ap(), report.boundary.curves.ap()) == approx((1, 1))


def test_ignore_flags_count_for_boundaries_alone(tmp_path: Path) -> None:
    a, b = square((100, 100), 0, 0, 30), square((100, 100), 60, 60, 30)
    truth = image_truth([{"segmentation": rle(a)}, {"segmentation": rle(b), "ignore": 1}])
    report = _coco(tmp_path, truth, [image_result(a)], ratio=0.02)
    assert report.mask.curves.stats()["AR100"] == 0.5
    assert report.boundary.curves.stats()["AR100"] == 1


def test_boundary_score_is_the_smaller_of_the_two(tmp_path: Path) -> None:
    thin, shifted = np.zeros((100, 100)), np.zeros((100, 100))
    thin[10:90, 10:90] = 1
    shifted[14:94, 10:90] = 1
    report = _coco(tmp_path, image_truth([{"segmentation": rle(thin)}]), [image_result(shifted)], ratio=0.02)
    assert report.mask.worst[0].overlap > 0.9
    assert report.boundary.worst[0].overlap < 0.6
    tiny = square((100, 100), 10, 10, 4)  # all band: both overlaps are the same
    report = _coco(
        tmp_path, image_truth([{"segmentation": rle(tiny)}]), [image_result(square((100, 100), 11, 10, 4))], ratio=0.02
    )
    assert report.mask.worst[0].overlap == report.boundary.worst[0].overlap == 12 / 20


def test_polygons_and_classes_of_the_ground_truth(tmp_path: Path) -> None:
    polygon = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    truth = image_truth([])
    truth["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0, "area": 400.0, "segmentation": polygon}
    ]
    report = _coco(tmp_path, truth, [image_result(square((100, 100), 10, 10, 20), category=2)])
    assert report.mask.worst[0].overlap == 1
    assert list(report.mask.per_category()) == ["2"]
    other_class = [image_result(square((100, 100), 10, 10, 20), category=1)]
    assert _coco(tmp_path, truth, other_class).mask.curves.ap() == 0
    assert _coco(tmp_path, truth, other_class, class_agnostic=True).mask.curves.ap() == approx(1)


def _lvis(folder: Path, truth: Any, results: Any, **options: Any) -> Any:
    return evaluate_lvis(write(folder / "gt.json", truth), write(folder / "pred.json", results), **options)


def test_lvis_detections_of_classes_that_are_not_annotated(tmp_path: Path) -> None:
    a, b = square((100, 100), 0, 0, 30), square((100, 100), 60, 60, 30)
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth = image_truth([{"segmentation": rle(a)}, {"segmentation": rle(b), "category_id": 2, "image_id": 2}], **lists)
    truth["images"].append({"id": 2, "height": 100, "width": 100, **lists})
    right = [image_result(a, 0.5), image_result(b, 0.5, 2, 2)]
    elsewhere = image_result(b, 0.9, 2, 1)  # class 2 on image 1, where nobody looked for it
    assert _lvis(tmp_path, truth, [*right, elsewhere]).mask.curves.ap() == approx(1)
    truth["images"][0]["neg_category_ids"] = [2]  # now it is known to be absent there
    stats = _lvis(tmp_path, truth, [*right, elsewhere])
    assert stats.stats(stats.mask)["APr"] == approx(0.5)
    assert stats.stats(stats.mask)["APf"] == approx(1)
    assert stats.stats(stats.mask)["APc"] == -1
    surplus = image_result(b, 0.9)  # class 1 on image 1
    assert _lvis(tmp_path, truth, [*right, surplus]).mask.curves.ap(categories=[0]) == approx(0.5)
    truth["images"][0]["not_exhaustive_category_ids"] = [1]
    assert _lvis(tmp_path, truth, [*right, surplus]).mask.curves.ap(categories=[0]) == approx(1)


def test_lvis_limit_is_per_image_over_all_classes(tmp_path: Path) -> None:
    a, b = square((100, 100), 0, 0, 30), square((100, 100), 60, 60, 30)
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    truth = image_truth([{"segmentation": rle(a)}], **lists)
    others = [image_result(b, 0.9, 2) for _ in range(299)]
    assert _lvis(tmp_path, truth, [*others, image_result(a, 0.1)]).mask.curves.ap() == approx(1)
    others.append(others[0])
    assert _lvis(tmp_path, truth, [*others, image_result(a, 0.1)]).mask.curves.ap() == 0


def test_upper_end_of_lvis_areas(tmp_path: Path) -> None:
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    mask = square((100, 100), 0, 0, 32)
    report = _lvis(tmp_path, image_truth([{"segmentation": rle(mask)}], **lists), [image_result(mask)], ratio=0.02)
    assert (report.stats(report.mask)["APs"], report.stats(report.mask)["APm"]) == approx((1, 1))
    assert (report.stats(report.boundary)["APs"], report.stats(report.boundary)["APm"]) == approx((-1, 1))


def test_lvis_has_no_crowds(tmp_path: Path) -> None:
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    mask = square((100, 100), 0, 0, 32)
    truth = image_truth([{"segmentation": rle(mask), "iscrowd": 1}], **lists)
    assert _lvis(tmp_path, truth, [image_result(mask)]).mask.curves.ap() == approx(1)


def test_more_processes_give_the_same(oracles: Path) -> None:
    folder = oracles / "coco_boundary"
    one, two = (evaluate_coco(folder / "gt.json", folder / "results.json", ratio=0.02, workers=w) for w in (1, 2))
    assert one.boundary is not None and two.boundary is not None
    assert np.array_equal(one.boundary.curves.precision, two.boundary.curves.precision)


@pytest.mark.parametrize("classes", [(1, 2), (2, 1)])
def test_ties_of_overlaps_go_to_the_last_object_in_the_order_of_classes(
    tmp_path: Path, classes: tuple[int, int]
) -> None:
    """The first result overlaps both objects equally, the second one only the left object."""
    left, between, right = (square((100, 100), 0, x, 20) for x in (0, 5, 10))
    truth = image_truth(
        [{"segmentation": rle(m), "category_id": c} for m, c in zip((left, right), classes, strict=True)]
    )
    results = [image_result(between, 0.9), image_result(left, 0.5)]
    ours = _coco(tmp_path, truth, results, class_agnostic=True).mask.curves
    other = _pycocotools(tmp_path / "gt.json", tmp_path / "pred.json", True, [1, 10, 100])
    assert np.array_equal(ours.precision, other.precision)
    assert ours.recall[0, 0, 0, -1] == (1.0 if classes == (1, 2) else 0.5)
