"""Masks that something else made or refined, scored in the same tables; CascadePSP through its package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bench_media import SIZE, Counting, coco, hq44k, save_mask
from eval_media import rle, square
from vidseg.datasets.layouts import HQSEG_VAL
from vidseg.errors import InputError, UsageError, WeightsError
from vidseg.evaluation.image_ap import evaluate_coco
from vidseg.evaluation.region import mask_scores
from vidseg.masks.files import read_mask_values
from vidseg.video.images import read_image
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.post_refinement import load_cascadepsp
from vidseg_pipelines.reproduce.run import run_benchmark
from vidseg_pipelines.reproduce.tables import read_table, run_table, show_table


def given_masks(root: Path, count: int = 2) -> Path:
    for name in HQSEG_VAL:
        for k in range(count):
            save_mask(root / "refined" / name / f"i{k}.png", square(SIZE, 5, 7, 14))
    return root / "refined"


def run(config: ReproduceConfig) -> tuple[dict[str, Any], int]:
    counting = Counting()
    result = run_benchmark(config, loaders=counting.loaders())
    return dict(result.scores), counting.images


def test_masks_of_a_folder_are_scored_without_a_network(tmp_path: Path) -> None:
    hq44k(tmp_path)
    folder = given_masks(tmp_path)
    scores, images = run(ReproduceConfig("hq44k-val", data=tmp_path, masks_from=folder, output=tmp_path / "out"))
    assert images == 0 and list(scores) == ["given"]
    pairs = []
    for k in range(2):
        truth = read_mask_values(tmp_path / HQSEG_VAL["coift"][1] / f"i{k}.png").foreground()
        pairs.append(mask_scores(truth, square(SIZE, 5, 7, 14) > 0))
    assert scores["given"]["coift"]["mIoU"] == pytest.approx(np.mean([p[0] for p in pairs if p]))
    assert scores["given"]["coift"]["mBIoU"] == pytest.approx(np.mean([p[1] for p in pairs if p]))


def test_one_set_needs_no_folder_of_its_own(tmp_path: Path) -> None:
    hq44k(tmp_path)
    folder = given_masks(tmp_path) / "coift"
    config = ReproduceConfig("hq44k-val", data=tmp_path, masks_from=folder, sets="coift", output=tmp_path / "out")
    assert run(config)[0]["given"]["coift"]["mIoU"] > 0


def test_results_of_coco_are_scored_as_the_evaluator_does(tmp_path: Path) -> None:
    annotations, _ = coco(tmp_path)
    rows = [
        {"image_id": k, "category_id": 1 + k % 2, "score": 0.9, "segmentation": rle(square(SIZE, 6 + k, 7, 16))}
        for k in (1, 2, 3)
    ]
    (tmp_path / "crm.json").write_text(json.dumps(rows))
    scores, images = run(
        ReproduceConfig("coco", data=tmp_path, masks_from=tmp_path / "crm.json", output=tmp_path / "out")
    )
    report = evaluate_coco(annotations, tmp_path / "crm.json", ratio=0.02)
    assert images == 0 and scores["given"]["mask"] == report.stats(report.mask)
    assert 0 < scores["given"]["mask"]["AP"] < 1


def test_a_row_of_a_table_may_score_a_folder(tmp_path: Path) -> None:
    hq44k(tmp_path)
    given_masks(tmp_path)
    rows = [
        {"label": "SAM", "run": {"benchmark": "hq44k-val", "masks": "sam"}, "paper": {"average.mIoU": 79.5}},
        {"label": "CRM", "run": {"benchmark": "hq44k-val", "masks-from": "refined"}, "paper": {"average.mIoU": 81.4}},
        {"label": "x", "run": {"benchmark": "hq44k-val", "masks-from": "nowhere"}, "paper": {"average.mIoU": 81.4}},
    ]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"title": "own", "rows": rows}))
    common = ReproduceConfig(data=tmp_path, output=tmp_path / "out", model="compact")
    table = read_table(str(tmp_path / "own.yaml"))
    results = run_table(table, common, loaders=Counting().loaders())
    assert [bool(r.missing) for r in results] == [False, False, True]
    assert results[1].ours["average.mIoU"] != results[0].ours["average.mIoU"]
    assert "nowhere: no mask dis5k-vd/i0.png for i0.jpg" in show_table(table, results, common)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"benchmark": "hq44k-val", "masks": "sam"}, "leave out --masks"),
        ({"benchmark": "hq44k-val", "prompt": "points"}, "go together"),
        ({"benchmark": "davis2017"}, "vidseg eval"),
    ],
)
def test_settings_that_contradict_given_masks(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run_benchmark(ReproduceConfig(data=tmp_path, masks_from=tmp_path, **settings))


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    hq44k(tmp_path)
    folder = given_masks(tmp_path)
    save_mask(folder / "coift" / "i1.png", np.ones((9, 9)))
    with pytest.raises(InputError, match="9x9 pixels, but its image"):
        run(ReproduceConfig("hq44k-val", data=tmp_path, masks_from=folder, output=tmp_path / "out"))


class OneBigger:
    """In the place of the package: every mask grows by a row, and what it was given is kept."""

    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def __init__(self, device: str, model_folder: str, download_and_check_model: bool) -> None:
        assert device == "cpu" and not download_and_check_model
        self.state = torch.load(Path(model_folder) / "model", weights_only=True)
        if "module.ok" not in self.state:
            raise RuntimeError("Missing key(s) in state_dict\nand more")

    def refine(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        self.seen.append((image, mask))
        return np.maximum(mask, np.roll(mask, 1, axis=0))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[OneBigger]:
    OneBigger.seen = []
    monkeypatch.setitem(sys.modules, "segmentation_refinement", SimpleNamespace(Refiner=OneBigger))  # type: ignore[arg-type]
    return OneBigger


def test_cascadepsp_refines_every_mask_of_the_network(tmp_path: Path, package: type[OneBigger]) -> None:
    hq44k(tmp_path)
    torch.save({"module.ok": torch.ones(1)}, tmp_path / "csp.pth")
    plain = ReproduceConfig("hq44k-val", data=tmp_path, masks="sam", sets="coift", output=tmp_path / "plain")
    refined = ReproduceConfig(
        *("hq44k-val", tmp_path), masks="sam", sets="coift", output=tmp_path / "fine", cascadepsp=tmp_path / "csp.pth"
    )
    before, after = run(plain)[0], run(refined)[0]
    assert before != after and len(package.seen) == 2
    image, mask = package.seen[0]
    assert np.array_equal(image, read_image(tmp_path / HQSEG_VAL["coift"][0] / "i0.jpg"))
    assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255} and mask.shape == SIZE
    score = json.loads((tmp_path / "fine" / "score.json").read_text())
    assert score["protocol"]["post-refinement"] == f"CascadePSP: {tmp_path / 'csp.pth'}"
    with pytest.raises(UsageError, match="cascadepsp"):
        run(ReproduceConfig("hq44k-val", data=tmp_path, masks="sam", sets="coift", output=tmp_path / "fine"))


def test_weights_and_package_of_cascadepsp_are_checked(
    tmp_path: Path, package: type[OneBigger], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: no weights of CascadePSP \(Missing key\(s\) in state_dict\)"):
        load_cascadepsp(tmp_path / "other.pth", torch.device("cpu"))
    with pytest.raises(WeightsError, match="no such weight file"):
        load_cascadepsp(tmp_path / "none.pth", torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "segmentation_refinement", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"vidseg\[cascadepsp\]"):
        load_cascadepsp(tmp_path / "other.pth", torch.device("cpu"))
