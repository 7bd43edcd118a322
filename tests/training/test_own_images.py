"""From own photographs to weights that `vidseg run --model` takes, without a recipe."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from vidseg.datasets.pairs import Item
from vidseg.loading import load_sam
from vidseg.training.own_images import hq_config, own_recipe
from vidseg.training.splits import keep_for_validation
from vidseg.training.validation_table import ValidationTable
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands.train import TrainHqCommand, _recipe


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(5):
        rgb = draw.integers(0, 120, (96, 128, 3), dtype=np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        y, x = draw.integers(5, 40, 2)
        mask[y : y + 40, x : x + 50] = 255
        rgb[mask > 0] += 120
        Image.fromarray(rgb).save(tmp_path / "images" / f"photo{number}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"photo{number}.png")
    return tmp_path


def test_own_images_become_weights(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--images", str(photos / "images"), "--masks", str(photos / "masks")]
    command = ["train", "hq", *folders, "--steps", "1", "--output", str(photos / "out"), "--device", "cpu"]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "4 images for training, 1 for validation" in told
    assert "step 1/1  loss " in told and "  learning rate 3.0e-04  " in told and "s a step  0:00:00 left" in told
    rows = [line.split() for line in told.splitlines() if line.strip().startswith("step ") and "loss" not in line]
    assert [row[1:3] for row in rows] == [[s, kind] for s in ("0", "1") for kind in ("sum", "hq", "sam")]
    weights = photos / "out" / "weights.safetensors"
    assert told.splitlines()[-1].startswith(f"trained weights: {weights} (mBIoU of ")
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE((photos / "out" / "log.jsonl").stat().st_mode)
    assert load_sam(weights).config.encoder == "compact"
    assert main(command) == 2
    assert "already holds a training run" in capsys.readouterr().err


def test_a_recipe_for_own_images_starts_from_any_sam() -> None:
    assert hq_config("compact").encoder == "compact" and hq_config("compact").hq
    assert hq_config("sam-vit-b") == hq_config("sam-hq-vit-b")
    assert hq_config("mobile-sam") == hq_config("sam-hq-vit-tiny")
    recipe = own_recipe(Path("a"), Path("b"), "sam-vit-l", steps=100, held_out=10, batch=1, half=True)
    assert (recipe.loop.accumulate, recipe.images_per_batch, recipe.autocast) == (4, 1, "bfloat16")
    assert recipe.folders is not None
    assert recipe.folders.sets == (f"{Path('a').absolute()}:{Path('b').absolute()}",)


def test_some_images_are_kept_and_some_are_left() -> None:
    items = [Item(f"photo{k}", "x", Path(f"{k}.jpg"), ()) for k in range(40)]
    for percent in (1, 10, 99):
        kept = keep_for_validation(items, percent)
        assert 0 < len(kept) < len(items)
        assert kept == keep_for_validation(items, percent)
    assert keep_for_validation(items[:1], 10) == []


def test_data_replaces_the_folder_of_a_recipe(tmp_path: Path) -> None:
    for kind in ({"folders": {"root": "elsewhere"}}, {"scenes": {"root": "elsewhere", "weights": {"coco": 1.0}}}):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"network": "sam-hq-vit-b", "loop": {"steps": 1, "lr": 0.1}, **kind}))
        recipe = _recipe(TrainHqCommand(output=tmp_path, config=path, data=tmp_path / "data"))
        place = recipe.folders or recipe.scenes
        assert place is not None and place.root == tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "what to train on"),
        (["--images", "a"], "what to train on"),
        (["--images", "a", "--masks", "b", "--data", "c"], "--data goes with --config"),
        (["--images", "a", "--masks", "b", "--config", "r.yaml"], "go without --config"),
        (["--images", "a", "--masks", "b", "--steps", "0"], "--steps 0"),
        (["--images", "a", "--masks", "b", "--held-out", "100"], "--held-out 100"),
        (["--images", "a", "--masks", "b", "--start", "compakt"], "compakt"),
    ],
)
def test_wrong_calls_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "hq", *options, "--output", str(tmp_path / "out")]) in (2, 4)
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_the_table_of_validations_counts_from_the_first(caplog: pytest.LogCaptureFixture) -> None:
    table = ValidationTable()
    with caplog.at_level(logging.INFO, "vidseg"):
        table.add(0, {"hq_miou": 0.8, "hq_mbiou": 0.7})
        table.add(5, {})
        table.add(10, {"hq_miou": 0.9, "hq_mbiou": 0.75})
        table.end(Path("weights.safetensors"))
        ValidationTable().end(Path("weights.safetensors"))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[-1] for line in lines[:3]] == ["gained", "+0.000", "+0.050"]
    assert lines[3] == "trained weights: weights.safetensors (mBIoU of hq 0.750, +0.050 since the start)"
    assert lines[4] == "trained weights: weights.safetensors"
