from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from toys import TINY
from vidseg.sam.geometry import frame_geometry
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.objectness import Objectness, describe_masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg_pipelines import discovery
from vidseg_pipelines.discovery import DiscoveryOptions, discover_objects

SIZE = (72, 128)
PLACES = np.dstack([*np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), np.zeros(SIZE)]).astype(np.uint8)
"""An image whose pixels say where they are, so that a crop of it does."""
DISCS = [(30, 30, 14, 0.9), (90, 40, 20, 0.8), (112, 14, 9, 0.9)]  # x, y, radius, quality
SPECK = (6, 66, 2)
QUALITY, LOG_AREA = 2, 4
"""Places of what the judge is told, with an embedding of one channel."""


class Discs:
    """Answers a click on a disc with the disc, if that is at least a fifth as high as the view; a box always.

    A speck elsewhere belongs to every mask. Clicks on nothing give a faint mask of the whole view.
    """

    config = TINY
    device = torch.device("cpu")

    def __init__(self, discs: Sequence[tuple[int, int, int, float]] = DISCS, quality: float = 1.0) -> None:
        self.discs, self.quality = discs, quality
        self.objectness: Objectness | None = None

    def judged(self, by: int, weight: float, bias: float) -> Discs:
        """With a judge who looks at one number alone."""
        self.objectness = Objectness(1)
        with torch.no_grad():
            self.objectness.weight.zero_()
            self.objectness.weight[0, by] = weight
            self.objectness.bias.fill_(bias)
        return self

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
        corner = view.image_pe[0, :, 0].numpy()
        cells = cells * np.array(geometry.original[::-1]) / np.array(geometry.low_res_frame[::-1]) + corner

        def disc(x: int, y: int, radius: int) -> np.ndarray:
            return 24 * (radius - np.hypot(*np.moveaxis(cells - (x, y), -1, 0)))

        logits, iou = [], []
        for place in np.asarray(places):
            seen = [d for d in self.discs if d[2] >= least and np.hypot(*(place + corner - d[:2])) < d[2]]
            shown = np.maximum(disc(*seen[0][:3]), disc(*SPECK)) if seen else np.full(geometry.low_res, 0.5)
            logits.append(shown)
            iou.append(seen[0][3] * self.quality if seen else 0.2)
        count = 3 if candidates == "all" else 1
        stacked = torch.from_numpy(np.array(logits, np.float32))[:, None].expand(-1, count, -1, -1)
        return [Masks(stacked, torch.tensor(iou)[:, None].expand(-1, count), geometry)]


def found_discs(sam: Discs, image: np.ndarray | None = None, **how: object) -> list[int]:
    """Which of the discs are found, in order, each of them alone and well."""
    settings = {"max_objects": 5, "image": image, **how}
    masks = discover_objects(sam, sam.encode([PLACES])[0], **settings)  # type: ignore[arg-type]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    discs = [np.hypot(x - cx, y - cy) < radius for cx, cy, radius, _ in sam.discs]
    overlaps = np.array([[(mask & disc).sum() / (mask | disc).sum() for disc in discs] for mask in masks])
    assert not masks or (np.sum(masks, axis=0).max() == 1 and overlaps.max(1).min() > 0.8)
    assert not any(mask[62:, :10].any() for mask in masks)  # the speck
    return [int(row.argmax()) for row in overlaps]


def test_each_large_object_is_found_once_the_most_prominent_first() -> None:
    assert found_discs(Discs()) == [1, 0, 2]


def test_limits_hold() -> None:
    assert found_discs(Discs(), max_objects=1) == [1]
    assert found_discs(Discs(), options=DiscoveryOptions(min_area=0.05)) == [1, 0]


def test_where_nothing_is_good_the_most_promising_mask_is_taken() -> None:
    assert found_discs(Discs(quality=0.3)) == [1]
    assert found_discs(Discs(quality=0.3), options=DiscoveryOptions(max_area=0.004)) == []


def test_a_judge_decides_what_is_an_object() -> None:
    small_is_good = Discs().judged(LOG_AREA, -4.0, 4 * np.log(0.05))
    assert found_discs(small_is_good) == [2, 0]  # not the largest disc, 14 % of the frame


def far_and_near(*discs: tuple[int, int, int, float]) -> Discs:
    return Discs(discs).judged(QUALITY, 8.0, -4.0)


def test_small_things_are_found_on_tiles() -> None:
    sam = far_and_near((30, 30, 14, 0.9), (100, 50, 6, 0.8))
    assert found_discs(sam, PLACES) == [0, 1]
    assert found_discs(sam, PLACES, tiles=False) == found_discs(sam, PLACES, zoom="never") == [0]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_views_are_looked_at_at_once_with_the_same_result(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lookers = set[str]()
    click_masks = discovery.click_masks
    monkeypatch.setattr(
        discovery, "click_masks", lambda *a: (lookers.add(threading.current_thread().name), click_masks(*a))[1]
    )
    sam = far_and_near((30, 30, 14, 0.9), (100, 50, 6, 0.8))
    assert found_discs(sam, PLACES, threads=threads) == [0, 1]
    assert all(name.startswith("vidseg-find") == (threads > 1) for name in lookers)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == before


def test_what_two_views_agree_on_comes_first() -> None:
    sam = far_and_near((64, 36, 30, 0.9), (12, 12, 9, 0.8))  # every tile cuts the first one in half
    assert found_discs(sam, PLACES, tiles=False) == [0, 1]
    assert found_discs(sam, PLACES) == [1, 0]


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
