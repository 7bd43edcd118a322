from __future__ import annotations

from pathlib import Path

import pytest

import paths
from vidseg.errors import UsageError
from vidseg.training.recipe import Recipe
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands.recipes import Stage, load_recipe
from vidseg_trackers.xmem.training.config import TrainConfig

FOLDER = paths.ROOT / "configs" / "training"
STAGES: dict[str, Stage] = {"xmem-compact": "xmem", "compact-base": "base", "compact-longer": "base"}
"""All others are for HQ parts."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_for_one_training_and_names_it_in_the_others(path: Path) -> None:
    own = STAGES.get(path.stem, "hq")
    stages: tuple[Stage, ...] = ("hq", "base", "xmem")
    for stage in stages:
        cls: type = TrainConfig if stage == "xmem" else Recipe
        if stage == own:
            assert isinstance(load_recipe(cls, path, stage), cls)
            continue
        with pytest.raises(UsageError, match=f"vidseg train {own} --config") as refused:
            load_recipe(cls, path, stage)
        assert "\n" not in str(refused.value)


def test_the_wrong_training_ends_with_usage_before_it_makes_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = FOLDER / "hq-vit-b.yaml"
    assert main(["train", "xmem", "--config", str(recipe), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"vidseg: {recipe}: a recipe for another training: vidseg train hq --config {recipe}\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_recipe_with_a_wrong_option_is_still_told_which(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("netwrok: compact\nloop: {steps: 3}\n")
    with pytest.raises(UsageError, match=r"unknown option 'netwrok' \(did you mean 'network'"):
        load_recipe(Recipe, tmp_path / "a.yaml", "hq")
