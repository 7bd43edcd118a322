"""Automatic mask generation against the official generator on an analytic stand-in for the network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from sam_oracle import FIXTURES, MINI_VIT, mini_state, rule_image
from vidseg.errors import InputError, UsageError
from vidseg.masks.rle import area, decode
from vidseg.sam.automatic import AutomaticOptions, Clicks, Upsample, automatic_masks, generate
from vidseg.sam.build import from_state

STUB = json.loads((FIXTURES / "amg_stub.json").read_text())
DISCS = np.array([(30, 30, 14), (90, 40, 20), (130, 90, 9), (60, 85, 25)], float)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels tell where they are, so that a crop of it knows its place."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x, y, y], axis=-1)


def discs(image: np.ndarray) -> Clicks:
    x, y = image[..., 0].astype(int), image[..., 1].astype(int)

    def answer(points: np.ndarray) -> tuple[torch.Tensor, Upsample]:
        logits, iou = [], []
        for point in points + image[0, 0, :2]:
            distances = np.hypot(*(DISCS[:, :2] - point).T)
            k = int((distances - DISCS[:, 2]).argmin())
            cx, cy, r = DISCS[k]
            logit = 8 * (r - np.hypot(x - cx, y - cy))
            logit[(abs(x - cx) <= 1) & (abs(y - cy) <= 1)] = -5
            logit[(x >= 2 + 6 * k) & (x < 4 + 6 * k) & (y >= 100) & (y < 103)] = 5
            logits.append(logit)
            iou.append(0.95 - 0.001 * distances[k] if distances[k] < r else 0.5)
        every = torch.tensor(np.array(logits), dtype=torch.float32)
        return torch.tensor(iou)[:, None], lambda keep: every[keep]

    return answer


@pytest.mark.parametrize("case", STUB)
def test_stub_vectors(case: str) -> None:
    got = generate(coordinates(120, 160), discs, AutomaticOptions(**STUB[case]["params"]))
    want: list[dict[str, Any]] = STUB[case]["result"]
    assert len(got) == len(want)
    for mask, official in zip(got, want, strict=True):
        record = mask.record("uncompressed_rle")
        for key in ("segmentation", "area", "bbox", "crop_box", "point_coords"):
            assert record[key] == official[key], key
        assert record["predicted_iou"] == pytest.approx(official["predicted_iou"], abs=1e-6)
        assert record["stability_score"] == pytest.approx(official["stability_score"], abs=1e-6)
        assert mask.record()["segmentation"].sum() == official["area"]


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_nothing_found_is_an_empty_list(layers: int) -> None:
    options = AutomaticOptions(points_per_side=4, pred_iou_thresh=2.0, crop_n_layers=layers)
    assert generate(coordinates(120, 160), discs, options) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (120, 160)])
def test_any_size_of_image_with_crops(size: tuple[int, int]) -> None:
    options = AutomaticOptions(
        points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, crop_n_layers=2, min_mask_region_area=5
    )
    for mask in generate(coordinates(*size), discs, options):
        assert decode(mask.rle).shape == size
        assert area(mask.rle) == mask.area


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="either points_per_side or point_grids"):
        AutomaticOptions(points_per_side=4, point_grids=(np.zeros((1, 2)),))
    with pytest.raises(UsageError, match="points_per_batch 0"):
        AutomaticOptions(points_per_batch=0)
    with pytest.raises(UsageError, match="expected one per layer, 2"):
        AutomaticOptions(points_per_side=None, point_grids=(np.zeros((1, 2)),), crop_n_layers=1)


def test_with_a_network() -> None:
    sam = from_state(MINI_VIT, mini_state(), "test")
    image = rule_image(96, 128)
    options = AutomaticOptions(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.2, points_per_batch=5)
    masks = automatic_masks(sam, image, options)
    assert masks
    with pytest.raises(InputError, match="expected uint8 RGB"):
        automatic_masks(sam, image[..., 0])
