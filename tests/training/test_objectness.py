"""The judge of objects: what it is fitted to, and that the rest of the file stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from toys import TINY, tiny_sam
from vidseg.datasets.pairs import Sample
from vidseg.errors import UsageError
from vidseg.loading import load_sam
from vidseg.sam.build import build_sam, save_sam
from vidseg.training.objectness import examples, fit_objectness
from vidseg_pipelines.commands.train_objectness import TrainObjectnessCommand


def write_data(root: Path) -> None:
    """Still images of bright discs; the street photograph has a part of its person as a second mask."""
    for name in ("images", "masks"):
        (root / "train" / name).mkdir(parents=True)
    for number, source in enumerate(("coco", "ccp", "coco")):
        image, mask = np.full((64, 96, 3), 40, np.uint8), np.zeros((64, 96), np.uint8)
        cv2.circle(mask, (30 + 10 * number, 32), 20, 255, -1)
        image[mask > 0] = 200
        stem = f"{source}_{number}"
        cv2.imwrite(str(root / "train" / "images" / f"{stem}.png"), image)
        cv2.imwrite(str(root / "train" / "masks" / f"{stem}__0.png"), mask)
        mask[:32] = 0
        cv2.imwrite(str(root / "train" / "masks" / f"{stem}__1.png"), mask)


def test_a_judge_learns_what_tells_good_masks_from_bad_ones() -> None:
    rng = np.random.default_rng(0)
    described = [torch.from_numpy(rng.normal(size=(60, 11))).float() * 3 + 5 for _ in range(4)]
    overlaps = [(part[:, 3] > 5).float() for part in described]
    judge = fit_objectness(described, overlaps, decay=1e-3)
    assert judge.in_features == 11
    new = torch.from_numpy(rng.normal(size=(200, 11))).float() * 3 + 5
    with torch.no_grad():
        said = judge(new)[:, 0] > 0
    assert (said == (new[:, 3] > 5)).float().mean() > 0.9


def test_masks_are_compared_with_every_object_of_their_image() -> None:
    sam = tiny_sam()
    image = np.zeros((64, 96, 3), np.uint8)
    left, everything = np.zeros((64, 96), np.uint8), np.full((64, 96), 255, np.uint8)
    left[:, :48] = 255
    described, both = examples(sam, Sample(image, (left, everything)), 3)
    _, one = examples(sam, Sample(image, (left,)), 3)
    assert described.shape == (len(both), 2 * 32 + 7)
    assert len(both) == len(one) and (both >= one).all() and both.max() <= 1


def test_a_network_that_draws_nothing_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="no click gave a mask on any of the images"):
        fit_objectness([], [], decay=1e-3)


def test_the_command_adds_a_judge_and_changes_nothing_else(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    torch.manual_seed(0)
    save_sam(build_sam(replace(TINY, objectness=False)), tmp_path / "old.safetensors", half=True)
    command = TrainObjectnessCommand(
        tmp_path / "data", tmp_path / "old.safetensors", tmp_path / "new.safetensors", points_per_side=3
    )
    assert command.run() == 0
    old, new = (load_sam(tmp_path / f"{name}.safetensors") for name in ("old", "new"))
    assert old.objectness is None and new.objectness is not None
    assert new.objectness.bias.isfinite().all() and new.objectness.bias != 0
    parts = new.state_dict()
    assert all(torch.equal(value, parts[key]) for key, value in old.state_dict().items())
    again = TrainObjectnessCommand(
        tmp_path / "data", tmp_path / "new.safetensors", tmp_path / "third.safetensors", points_per_side=3
    )
    assert again.run() == 0  # a judge that is there is replaced
