"""Whole runs on SA-V, MOSE, LVOS, VOST and BURST, every object from its first mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import video_layouts as layouts
from bench_media import Counting
from vidseg.errors import InputError
from vidseg.evaluation.vos import evaluate_vos


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sav-val", layouts.sav),
        ("lvos-v1", layouts.lvos),
        ("lvos-v2", layouts.lvos),
        ("vost", layouts.vost),
        ("burst", layouts.burst),
        ("mose", layouts.mose),
    ],
)
def test_a_data_set_scores_as_the_evaluator_does(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    root = make(tmp_path)
    result = Counting().run(name, tmp_path, refine="none")
    pred = tmp_path / "out" / "predictions" / "tracker"
    report = evaluate_vos(root, pred)
    assert result.scores == {"tracker": {key: value / 100 for key, value in report.summary().items()}}
    assert 0 < next(iter(result.scores["tracker"].values())) < 1  # the tracker keeps its first masks, objects move
    assert result.protocol["metric"] == report.protocol()["metric"]
    assert result.columns == (("J", "J_last") if name == "vost" else ("J&F", "J", "F"))
    again = Counting().run(name, root, refine="none", output=tmp_path / "again", limit=1)
    assert again.computed == 1


def test_objects_of_sav_start_apart_and_are_saved_where_they_are_annotated(tmp_path: Path) -> None:
    layouts.sav(tmp_path)
    Counting().run("sav-val", tmp_path, refine="none")
    pred = tmp_path / "out" / "predictions" / "tracker" / "b"
    assert sorted(path.name for path in pred.iterdir()) == ["000", "001"]
    assert sorted(path.stem for path in (pred / "001").iterdir()) == [f"{4 * t:05d}" for t in range(layouts.FRAMES)]
    sizes = {path.stem: path.stat().st_size for path in (pred / "001").iterdir()}
    assert sizes["00004"] < sizes["00008"]  # nothing before its first mask
    scores = evaluate_vos(tmp_path / "sav_val", tmp_path / "out" / "predictions" / "tracker").objects
    late = next(one for one in scores if (one.sequence, one.id) == ("b", "001"))
    assert late.j[0] > 0.5  # not cut by the other object, which it holds


def test_a_private_ground_truth_leaves_label_maps_and_no_score(tmp_path: Path) -> None:
    layouts.mose(tmp_path, frames=1)
    result = Counting().run("mose", tmp_path, refine="none")
    assert "not public: send the label maps in" in result.lacking[0]
    saved = tmp_path / "out" / "predictions" / "tracker" / "a"
    assert len(list(saved.iterdir())) == layouts.FRAMES


def test_another_data_set_in_its_place_is_named(tmp_path: Path) -> None:
    layouts.vost(tmp_path)
    with pytest.raises(InputError, match=r"no lvos-v1 in .*: expected LVOS/ or LVOS_V1/ there.*found VOST root"):
        Counting().run("lvos-v1", tmp_path)
