"""Losses, point sampling and noise masks against worked values of the released training code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidseg.masks.noise import noise_mask
from vidseg.training.losses import bce, dice, sample_points, soft_boundary_band, uncertain_points
from vidseg.training.objectives import sam_loss
from vidseg.training.simulated_prompts import click, clicks, jitter_box, noisy_logits, tight_box


def disc(height: int, width: int, cx: float, cy: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.where((x - cx) ** 2 + (y - cy) ** 2 <= radius**2, 255, 0).astype(np.uint8)


def test_bce_and_dice_worked_values() -> None:
    logits, targets = torch.tensor([[2.0, -1.0, 0.5, -3.0]]), torch.tensor([[1.0, 0.0, 0.2, 0.0]])
    assert bce(logits, targets).item() == pytest.approx(0.3407135, abs=1e-6)
    assert dice(logits, targets).item() == pytest.approx(0.2510300, abs=1e-6)


def test_dice_of_empty_target_is_finite() -> None:
    assert 0 <= dice(torch.full((1, 8), -20.0), torch.zeros(1, 8)).item() < 1e-6


def test_point_sampling_worked_values() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    points = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.25, 0.75]]])
    assert sample_points(maps, points)[0, 0].tolist() == [0.0, 3.75, 7.5, 10.5]


def test_uncertain_points_gather_where_the_sign_changes() -> None:
    ramp = (torch.arange(64.0) - 31.5).expand(1, 1, 64, 64)
    points = uncertain_points(ramp, 400, torch.Generator().manual_seed(0))
    assert points.shape == (1, 400, 2) and points.min() >= 0 and points.max() <= 1
    near = ((points[0, :, 0] - 0.5).abs() < 0.13).float().mean().item()
    assert near == pytest.approx(0.75 + 0.25 * 0.26, abs=0.05)  # 3/4 chosen from the middle quarter, the rest anywhere


def test_uncertain_points_repeat_with_the_seed() -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    first, second = (uncertain_points(logits, 50, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_noise_mask_worked_values() -> None:
    mask = disc(256, 256, 128, 120, 60)
    assert np.count_nonzero(mask) == 11289
    noisy = noise_mask(np.random.default_rng(0), mask.astype(np.float32))
    assert set(np.unique(noisy)) == {0.0, 255.0}
    changed = noisy != mask
    assert 0.25 * 4026 < np.count_nonzero(changed) < 0.37 * 4026  # each of 4026 pixels flips with p about 0.31
    distance = np.abs(np.hypot(*(np.mgrid[:256, :256] - np.array([120, 128])[:, None, None])) - 60)
    assert distance[changed].max() < 12  # nothing changes away from the outline


def test_boundary_band_covers_the_outline_only() -> None:
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 5:15, 5:] = 1
    band = soft_boundary_band(mask, 1)[0, 0]
    assert band[10, 4] == band[10, 5] == band[5, 10] == band[4, 10] == 1
    assert band[10, 10] == band[0, 0] == band[10, 19] == 0  # inside, outside, at the image border


def test_best_of_three_masks_learns() -> None:
    target = torch.zeros(1, 1, 32, 32)
    target[..., 8:24, 8:24] = 1
    logits = torch.full((1, 4, 8, 8), -6.0)
    logits[:, 2] = torch.nn.functional.avg_pool2d(target, 4)[:, 0] * 12 - 6
    logits.requires_grad_(True)
    iou = torch.zeros(1, 4, requires_grad=True)
    parts = sam_loss(logits, iou, target, 256, torch.Generator().manual_seed(0))
    parts["loss"].backward()
    assert parts["multi"] < 0.2 < parts["single"]
    assert logits.grad is not None and iou.grad is not None
    assert logits.grad[:, [1, 3]].abs().sum() == 0 < logits.grad[:, 2].abs().sum()
    assert iou.grad[0, 2] < 0 == iou.grad[0, 0]  # mask 2 is right (IoU 1), mask 0 empty (IoU 0)


def test_boxes_and_clicks_fit_the_mask() -> None:
    rng = np.random.default_rng(1)
    mask = disc(96, 128, 60, 40, 20)
    assert tight_box(mask).tolist() == [40, 20, 81, 61]
    assert tight_box(np.zeros((4, 4), np.uint8)).tolist() == [0, 0, 0, 0]
    for _ in range(50):
        x, y = click(rng, mask).astype(int)
        assert mask[y, x] > 128
        points, labels = clicks(rng, mask, 4)
        values = mask[points[:, 1].astype(int), points[:, 0].astype(int)] > 128
        assert labels[0] == 1 and (values == (labels == 1)).all()
        box = jitter_box(rng, tight_box(mask), 96, 128)
        assert 0 <= box[0] < box[2] <= 128 and 0 <= box[1] < box[3] <= 96


def test_clicks_beside_an_object_fall_on_its_neighbours_too() -> None:
    rng = np.random.default_rng(1)
    mask, far = disc(96, 128, 30, 40, 10), disc(96, 128, 100, 40, 10)
    found = [clicks(rng, mask, 4, [far, mask]) for _ in range(100)]  # what lies under the object itself is no neighbour
    beside = [point for points, labels in found for point, label in zip(points, labels, strict=True) if not label]
    on_far = np.mean([far[int(y), int(x)] > 128 for x, y in beside])
    assert 0.35 < on_far < 0.65
    assert all(mask[int(y), int(x)] <= 128 for x, y in beside)


@pytest.mark.parametrize(
    ("shares", "within"), [((1.0, 0.0, 0.0), 0.04), ((0.0, 1.0, 0.0), 0.12), ((0.0, 0.0, 1.0), 0.4)]
)
def test_boxes_are_as_far_off_as_their_share_says(shares: tuple[float, float, float], within: float) -> None:
    rng = np.random.default_rng(3)
    true = np.array([200, 200, 300, 300], np.float32)
    errors = np.stack([jitter_box(rng, true, 500, 500, shares) - true for _ in range(300)]) / 100
    assert 0.7 * within < np.abs(errors).max() <= within


def test_noisy_logits_resemble_the_mask() -> None:
    rng = np.random.default_rng(2)
    mask = disc(128, 160, 80, 60, 40)
    small = mask[2::4, 2::4] > 128
    overlaps = []
    for _ in range(30):
        logits = noisy_logits(rng, mask)
        assert logits.shape == (32, 40) and np.abs(logits).max() <= 10
        overlaps.append(np.count_nonzero((logits > 0) & small) / np.count_nonzero((logits > 0) | small))
    assert 0.6 < np.mean(overlaps) < 0.97 and min(overlaps) < 0.9
