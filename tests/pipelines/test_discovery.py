from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from toys import TINY
from vidseg.sam.geometry import frame_geometry
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.objectness import Objectness, describe_masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg_pipelines.discovery import DiscoveryOptions, discover_objects

SIZE = (72, 128)
GEOMETRY = frame_geometry(SIZE, TINY)
FEATURES = FrameFeatures(torch.zeros(1, 1, 1), None, torch.zeros(1, 1, 1), GEOMETRY)
DISCS = [(30, 30, 14, 0.9), (90, 40, 20, 0.8), (112, 14, 9, 0.9)]  # x, y, radius, quality


class Discs:
    """Answers a click or the box around a disc with the disc; other clicks with a faint mask of the whole frame."""

    objectness: Objectness | None = None

    def __init__(self, quality: float = 1.0) -> None:
        self.quality = quality

    def decode(self, features: Sequence[FrameFeatures], prompts: Sequence[PromptBatch], candidates: str = "single"):
        (prompt,) = prompts
        if prompt.points is not None:
            places = prompt.points[:, 0]
        else:
            assert prompt.boxes is not None
            places = (prompt.boxes[:, :2] + prompt.boxes[:, 2:]) / 2
        y, x = np.mgrid[: GEOMETRY.low_res[0], : GEOMETRY.low_res[1]]
        cell = GEOMETRY.padded[1] / GEOMETRY.low_res[1] * SIZE[1] / GEOMETRY.resized[1]
        y, x = (y + 0.5) * cell, (x + 0.5) * cell
        logits, iou = [], []
        for px, py in places:
            inside = [(d, q) for *d, q in DISCS if np.hypot(px - d[0], py - d[1]) < d[2]]
            if inside:
                (cx, cy, r), quality = inside[0]
                mask = 24 * (r - np.hypot(x - cx, y - cy))
                speck = (np.abs(x - 4) < 2) & (np.abs(y - 66) < 2)  # elsewhere: no part of what was clicked
                logits.append(np.where(speck, 5, mask))
                iou.append(quality * self.quality)
            else:
                logits.append(np.full_like(x, 0.5))
                iou.append(0.2)
        count = 3 if candidates == "all" else 1
        stacked = torch.from_numpy(np.array(logits, np.float32))[:, None].expand(-1, count, -1, -1)
        return [Masks(stacked, torch.tensor(iou)[:, None].expand(-1, count), GEOMETRY)]


def test_each_large_object_is_found_once_the_most_prominent_first() -> None:
    found = discover_objects(Discs(), FEATURES, max_objects=5)  # type: ignore[arg-type]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert len(found) == 3
    for mask, (cx, cy, r, _) in zip(found, [DISCS[1], DISCS[0], DISCS[2]], strict=True):
        disc = np.hypot(x + 0.5 - cx, y + 0.5 - cy) < r
        assert (mask & disc).sum() / (mask | disc).sum() > 0.9
        assert not mask[60:, :8].any()  # the speck
    assert np.sum(found, axis=0).max() == 1


def test_limits_hold() -> None:
    assert len(discover_objects(Discs(), FEATURES, max_objects=1)) == 1  # type: ignore[arg-type]
    large = DiscoveryOptions(min_area=0.05)
    assert len(discover_objects(Discs(), FEATURES, max_objects=5, options=large)) == 2  # type: ignore[arg-type]


def test_where_nothing_is_good_the_most_promising_mask_is_taken() -> None:
    (mask,) = discover_objects(Discs(quality=0.3), FEATURES, max_objects=5)  # type: ignore[arg-type]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert (mask & (np.hypot(x + 0.5 - 90, y + 0.5 - 40) < 20)).sum() / mask.sum() > 0.9
    tiny = DiscoveryOptions(max_area=0.004)
    assert discover_objects(Discs(), FEATURES, max_objects=5, options=tiny) == []  # type: ignore[arg-type]


def test_a_judge_decides_what_is_an_object() -> None:
    sam = Discs()
    sam.objectness = Objectness(1)
    with torch.no_grad():
        sam.objectness.weight.zero_()
        sam.objectness.weight[0, 2 + 2] = -4.0  # the logarithm of the area: small is good
        sam.objectness.bias.fill_(4 * np.log(0.05))
    features = FrameFeatures(torch.zeros(1, 6, 8), None, torch.zeros(1, 1, 1), GEOMETRY)
    found = discover_objects(sam, features, max_objects=5)  # type: ignore[arg-type]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert len(found) == 2  # not the largest disc, 14 % of the frame
    for mask in found:
        assert max((mask & (np.hypot(x + 0.5 - cx, y + 0.5 - cy) < r)).sum() for cx, cy, r, _ in DISCS[::2]) > 0


def test_masks_are_described_by_what_is_inside_and_around() -> None:
    embedding = torch.zeros(2, 4, 8)
    embedding[0, :, :4] = 1.0  # left
    embedding[1, :, 4:] = 3.0  # right
    logits = torch.full((2, 16, 32), -1.0)
    logits[0, :, :16] = 1.0  # the whole left half
    logits[1, 4:8, 24:28] = 1.0  # one cell on the right
    left, cell = describe_masks(embedding, logits, torch.tensor([0.5, 0.9]), torch.tensor([1.0, 0.8])).tolist()
    assert left[:4] == pytest.approx([1, 0, 1, -3])
    assert cell[:4] == pytest.approx([0, 3, 0, 0])
    assert left[4:] == pytest.approx([0.5, 1.0, np.log(0.5), 1.0, 0.5, 1.0, 0.5], abs=0.02)
    assert cell[4:] == pytest.approx([0.9, 0.8, np.log(1 / 32), 0.25, 0.125, 1.0, 0.0])
