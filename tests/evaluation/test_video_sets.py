"""The layouts and the rules of SA-V, MOSE, LVOS, VOST and BURST; the numbers follow from squares."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import video_layouts as layouts
from eval_media import save_labels
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.contours import region_and_contour
from vidseg.evaluation.vos import VosReport, evaluate_vos
from vidseg_pipelines.cli import main

FRAMES, SIZE = layouts.FRAMES, layouts.SIZE


def _perfect(report: VosReport) -> bool:
    return all(value == 100 for value in report.summary().values())


def test_sav_scores_every_object_between_its_first_and_last_annotation(tmp_path: Path) -> None:
    root = layouts.sav(tmp_path)
    pred = tmp_path / "pred"
    shutil.copytree(root / "Annotations_6fps", pred)
    report = evaluate_vos(root, pred)
    assert _perfect(report)
    assert [(one.sequence, one.id) for one in report.objects] == [(v, k) for v in "ab" for k in ("000", "001")]
    frames = {(one.sequence, one.id): one.frames for one in report.objects}
    assert frames["a", "001"] == ("00004", "00008", "00012", "00016")
    assert frames["b", "001"] == ("00012", "00016")  # given on 8, the last is 20
    assert "SA-V" in str(report.protocol()["metric"]) and "sav_val.txt" in str(report.protocol()["ground truth"])
    for end in ("00000", "00020"):
        (pred / "a" / "000" / f"{end}.png").unlink()
    layouts.save_mask(pred / "b" / "001" / "00012.png", layouts.first(3))
    whole = (layouts.first(3) + layouts.second(3)) > 0
    j, f = region_and_contour(whole, layouts.first(3))
    worse = evaluate_vos(root, pred)
    assert worse.objects[3].j == (j, 1.0) and worse.objects[3].f == (f, 1.0)
    assert worse.summary()["J"] == pytest.approx((300 + 50 * (j + 1)) / 4)


def test_sav_takes_no_label_maps_and_no_file_of_two_objects(tmp_path: Path) -> None:
    root = layouts.sav(tmp_path)
    for name in "ab":
        save_labels(tmp_path / "maps" / name, [layouts.labels(t) for t in range(24)])
    with pytest.raises(InputError, match=r"no folder 000: SA-V needs VIDEO/OBJECT/\*\.png"):
        evaluate_vos(root, tmp_path / "maps")
    pred = tmp_path / "pred"
    shutil.copytree(root / "Annotations_6fps", pred)
    save_labels(pred / "a" / "000", [layouts.labels(1)], 4)
    with pytest.raises(InputError, match=r"00004\.png: more than one object"):
        evaluate_vos(root, pred)


@pytest.mark.parametrize(("table", "split"), [("val_meta.json", "val"), ("meta.json", "valid")])
def test_lvos_takes_the_objects_and_their_ranges_from_the_table(tmp_path: Path, table: str, split: str) -> None:
    root = layouts.lvos(tmp_path, table, split)
    pred = tmp_path / "pred"
    shutil.copytree(root / split / "Annotations", pred)
    report = evaluate_vos(root, pred)
    assert _perfect(report)
    assert f"LVOS: {split}/Annotations, {table}" == report.protocol()["ground truth"]
    frames = {(one.sequence, one.id): one.frames for one in report.objects}
    assert frames["a", 2] == ("00000006", "00000011", "00000016", "00000021")
    assert frames["b", 2] == ("00000016", "00000021")  # in the table from 11 to 26
    (root / split / "unseen_videos.txt").write_text("b\n")
    for path in (pred / "b").iterdir():
        save_labels(tmp_path / "empty", [np.zeros(SIZE)])
        shutil.copy(tmp_path / "empty" / "00000.png", path)
    summary = evaluate_vos(root, pred).summary()
    assert (summary["J_seen"], summary["J_unseen"], summary["J&F"]) == (100, 0, 50)


def test_frames_where_an_object_of_lvos_is_away_count(tmp_path: Path) -> None:
    """vos-benchmark would leave them out until the object is seen."""
    root = layouts.lvos(tmp_path)
    table = root / "val" / "val_meta.json"
    content = json.loads(table.read_text())
    content["videos"]["b"]["objects"]["2"]["frame_range"] = {"start": 1, "end": 26, "frame_nums": FRAMES}
    table.write_text(json.dumps(content))
    pred = tmp_path / "pred"
    shutil.copytree(root / "val" / "Annotations", pred)
    j = {(one.sequence, one.id): one.j for one in evaluate_vos(root, pred).objects}
    assert j["b", 2] == (1.0, 1.0, 1.0, 1.0)
    by_rule = {(one.sequence, one.id): one.j for one in evaluate_vos(root, pred, protocol="vos-benchmark").objects}
    assert by_rule["b", 2] == (1.0, 1.0, 1.0)


def test_vost_leaves_255_out_and_weighs_the_end_apart(tmp_path: Path) -> None:
    root = layouts.vost(tmp_path)
    pred = tmp_path / "pred"
    for name in ("1_cut", "2_peel"):
        for t in range(FRAMES):
            guess = layouts.labels(t)
            guess[4:16, 16 + 2 * t : 20 + 2 * t] = 1  # all of the strip that is neither object nor background
            if (name, t) == ("1_cut", FRAMES - 2):
                guess[guess == 2] = 0
            save_labels(pred / name, [guess], 10 * t)
    report = evaluate_vos(root, pred)
    assert [(one.sequence, one.id) for one in report.objects] == [(v, k) for v in ("1_cut", "2_peel") for k in (1, 2)]
    assert report.summary() == {"J": pytest.approx((300 + 75) / 4), "J_last": pytest.approx(300 / 4)}
    assert report.protocol()["void"] == "255 in the ground truth is left out of both"
    published = evaluate_vos(root, pred, protocol="vost-published")
    assert published.objects[0].j == tuple([pytest.approx(144 / 192)] * 4)
    assert "published evaluator" in str(published.protocol()["metric"])
    with pytest.raises(UsageError, match=r"vost-published: .* is not VOST"):
        evaluate_vos(layouts.mose(tmp_path), pred, protocol="vost-published")


def test_burst_compares_tracks_with_label_maps_and_with_results(tmp_path: Path) -> None:
    root = layouts.burst(tmp_path)
    table = root / "annotations" / "val" / "all_classes.json"
    report = evaluate_vos(root, table)
    assert _perfect(report)
    assert "HOTA" in str(report.protocol()["metric"])
    frames = {(one.sequence, one.id): one.frames for one in report.objects}
    assert frames["LaSOT/bear-1", 7] == ("frame0010", "frame0020", "frame0030", "frame0040")
    assert frames["AVA/x_scene_1", 9] == ("frame0020", "frame0030", "frame0040")
    for name in ("LaSOT/bear-1", "AVA/x_scene_1"):
        for t in range(FRAMES):
            save_labels(tmp_path / "pred" / name, [7 * layouts.first(t)], 10 * t)
            path = tmp_path / "pred" / name / f"{10 * t:05d}.png"
            path.rename(path.with_name(f"frame{10 * t:04d}.png"))
    j = {(one.sequence, one.id): one.j for one in evaluate_vos(root, tmp_path / "pred").objects}
    assert j["LaSOT/bear-1", 7] == (1.0,) * 4
    assert j["LaSOT/bear-1", 9] == (0.0,) * 3
    content = json.loads(table.read_text())
    del content["sequences"][0]
    (tmp_path / "part.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no predictions of video LaSOT/bear-1"):
        evaluate_vos(root, tmp_path / "part.json")


@pytest.mark.parametrize(
    ("make", "inner", "name"),
    [
        (layouts.sav, "Annotations_6fps", "SA-V"),
        (layouts.sav, "JPEGImages_24fps", "SA-V"),
        (layouts.mose, "valid/Annotations", "one per sequence"),
        (layouts.mose, "valid/JPEGImages", "Annotations"),
        (layouts.mose, "valid", "Annotations"),
        (layouts.lvos, "val/Annotations", "LVOS"),
        (layouts.lvos, "val", "LVOS"),
        (layouts.vost, "Annotations", "VOST"),
        (layouts.burst, "annotations/val", "BURST"),
        (layouts.burst, "annotations", "BURST"),
        (layouts.burst, "annotations/val/all_classes.json", "BURST"),
        (layouts.burst, "frames", "BURST"),
    ],
)
def test_a_root_is_found_from_a_level_above_and_below(
    tmp_path: Path, make: Callable[[Path], Path], inner: str, name: str
) -> None:
    root = make(tmp_path / "data")
    truth = {"SA-V": "Annotations_6fps", "VOST": "Annotations", "BURST": "annotations/val/all_classes.json"}
    split = next((s for s in ("val", "valid") if (root / s / "Annotations").is_dir()), "")
    pred = root / truth.get(name, f"{split}/Annotations")
    right = evaluate_vos(root, pred)
    for place in (tmp_path / "data", root / inner):
        report = evaluate_vos(place, pred)
        assert report.summary() == right.summary() and len(report.objects) == len(right.objects)
        assert name in str(report.protocol()["ground truth"]) or place == tmp_path / "data"


def test_one_video_and_two_data_sets_are_named(tmp_path: Path) -> None:
    root = layouts.sav(tmp_path / "data")
    with pytest.raises(InputError, match=r"a is one video of SA-V: name the folder of all, .*sav_val"):
        evaluate_vos(root / "Annotations_6fps" / "a", root / "Annotations_6fps")
    layouts.lvos(tmp_path / "data")
    with pytest.raises(InputError, match=r"holds 2 data sets: name one of its folders LVOS, sav_val"):
        evaluate_vos(tmp_path / "data", root / "Annotations_6fps")


def test_first_frames_alone_are_scored_elsewhere(tmp_path: Path) -> None:
    root = layouts.mose(tmp_path, frames=1)
    with pytest.raises(InputError, match="only first frames are public, the rest is scored by the data set's server"):
        evaluate_vos(root, root / "valid" / "Annotations")


def test_tables_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    root = layouts.lvos(tmp_path)
    shutil.rmtree(root / "val" / "Annotations" / "b")
    with pytest.raises(InputError, match=r"video 'b' of val_meta\.json has no folder of masks"):
        evaluate_vos(root, root)
    table = layouts.burst(tmp_path) / "annotations" / "val" / "all_classes.json"
    content = json.loads(table.read_text())
    content["sequences"][0]["segmentations"][1]["7"] = {"rle": "no run-lengths"}
    table.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"sequences\[0\]: track 7 on frame0010: .*RLE"):
        evaluate_vos(table, table)


def test_the_command_prints_its_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.sav(tmp_path)
    pred = root / "Annotations_6fps"
    assert main(["eval", "vos", "--gt", str(root), "--pred", str(pred), "--json", str(tmp_path / "out.json")]) == 0
    assert "SA-V J&F (0..100), as by the evaluator published with SAM 2" in capsys.readouterr().out
    assert main(["eval", "vos", "--gt", str(root), "--pred", str(pred), "--json", "-"]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.json").read_text()
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["J&F"] == 100 and content["per_object"][0]["object"] == "000"
