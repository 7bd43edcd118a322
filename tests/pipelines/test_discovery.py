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


PLACES = np.dstack([*np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), np.zeros(SIZE)]).astype(np.uint8)
"""An image whose pixels say where they are, so that a crop of it does."""


class FarAndNear:
    """Clicks show a disc (x, y, radius, quality) where it is at least a fifth as high as the view; boxes always do."""

    config = TINY

    def __init__(self, discs: Sequence[tuple[int, int, int, float]]) -> None:
        self.discs = discs
        self.objectness = Objectness(1)
        with torch.no_grad():
            self.objectness.weight.zero_()
            self.objectness.weight[0, 2] = 8.0  # predicted quality
            self.objectness.bias.fill_(-4.0)

    def encode(self, images: Sequence[np.ndarray], side: int | None = None) -> list[FrameFeatures]:
        corners = [torch.from_numpy(image[0, :1, :2].astype(np.float32).reshape(1, 2, 1)) for image in images]
        made = [frame_geometry((image.shape[0], image.shape[1]), TINY, side) for image in images]
        return [FrameFeatures(torch.zeros(1, *g.grid), None, c, g) for g, c in zip(made, corners, strict=True)]

    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: str | None = None,
        candidates: str = "single",
    ) -> list[Masks]:
        (prompt,), (view,) = prompts, features
        clicks, boxes, geometry = prompt.points, prompt.boxes, view.geometry
        places = clicks[:, 0] if clicks is not None else (boxes[:, :2] + boxes[:, 2:]) / 2  # type: ignore[index]
        least = 0.1 * geometry.original[0] if clicks is not None else 0
        cells = np.mgrid[: geometry.low_res[0], : geometry.low_res[1]][::-1].transpose(1, 2, 0) + 0.5
        scale = np.array(geometry.original[::-1]) / np.array(geometry.low_res_frame[::-1])
        corner = view.image_pe[0, :, 0].numpy()
        logits, iou = [], []
        for place in np.asarray(places):
            seen = [d for d in self.discs if d[2] >= least and np.hypot(*(place + corner - d[:2])) < d[2]]
            x, y, radius, quality = seen[0] if seen else (0, 0, 0, 0.0)
            logits.append(3 * (radius - np.hypot(*np.moveaxis(cells * scale + corner - (x, y), -1, 0))))
            iou.append(quality)
        count = 3 if candidates == "all" else 1
        stacked = torch.from_numpy(np.array(logits, np.float32))[:, None].expand(-1, count, -1, -1)
        return [Masks(stacked, torch.tensor(iou)[:, None].expand(-1, count), geometry)]


def found_discs(sam: FarAndNear, **how: object) -> list[int]:
    """Which of the discs are found, in order."""
    masks = discover_objects(sam, sam.encode([PLACES])[0], max_objects=5, image=PLACES, **how)  # type: ignore[arg-type]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    discs = [np.hypot(x - cx, y - cy) < radius for cx, cy, radius, _ in sam.discs]
    return [int(np.argmax([(mask & disc).sum() / (mask | disc).sum() for disc in discs])) for mask in masks]


def test_small_things_are_found_on_tiles() -> None:
    sam = FarAndNear([(30, 30, 14, 0.9), (100, 50, 6, 0.8)])
    assert found_discs(sam) == [0, 1]
    assert found_discs(sam, tiles=False) == found_discs(sam, zoom="never") == [0]


def test_what_two_views_agree_on_comes_first() -> None:
    sam = FarAndNear([(64, 36, 30, 0.9), (12, 12, 9, 0.8)])  # every tile cuts the first one in half
    assert found_discs(sam, tiles=False) == [0, 1]
    assert found_discs(sam) == [1, 0]


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
