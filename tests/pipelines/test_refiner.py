from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from toys import TINY
from vidseg.errors import UsageError
from vidseg.masks.paste import to_original_size
from vidseg.masks.rle import decode
from vidseg.sam.config import SamConfig, named_config
from vidseg.sam.geometry import frame_geometry
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Crop
from vidseg.types import Frame, Tracks
from vidseg_pipelines.mask_layers import layers_of, mean_window, reach
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner

HEIGHT, WIDTH = 72, 128
FRAME = Frame(3, 3, 0.1, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
GEOMETRY = frame_geometry((HEIGHT, WIDTH), TINY)
FEATURES = FrameFeatures(torch.zeros(1, 1, 1), None, torch.zeros(1, 1, 1), GEOMETRY)


def ramp(left: float, right: float, size: tuple[int, int], width: int) -> np.ndarray:
    """Signed distance (pixels of the frame) to the outside of a vertical band, sampled at the cells of ``size``."""
    x = (np.arange(size[1]) + 0.5) * width / size[1]
    return np.broadcast_to(np.minimum(x - left, right - x), size).astype(np.float32)


class Draws:
    """A decoder that always draws a band from ``left`` to ``right`` and remembers what it was asked."""

    config = TINY

    def __init__(self, left: float, right: float) -> None:
        self.band, self.asked = (left, right), list[PromptBatch]()

    def decode(self, features: Sequence[FrameFeatures], prompts: Sequence[PromptBatch]) -> list[Masks]:
        self.asked += prompts
        logits = torch.from_numpy(ramp(*self.band, GEOMETRY.low_res, GEOMETRY.padded[1]).copy())
        return [Masks(logits.expand(len(p), 1, -1, -1), torch.ones(len(p), 1), GEOMETRY) for p in prompts]


def columns(sam: Draws, left: float, right: float, mode: Mode) -> tuple[int, int]:
    """First and end column of the refined mask of a tracker that says ``left`` to ``right``."""
    near = torch.from_numpy(np.clip(ramp(left, right, (36, 64), WIDTH) / 16 + 0.5, 0, 1))
    boxes = np.array([[left, 0, right, HEIGHT]], np.float32)
    tracks = Tracks(3, np.array([5]), boxes, np.ones(1, np.float32), masks=near[None])
    refiner = Refiner(sam, RefineOptions(mode))  # type: ignore[arg-type]
    (result,) = refiner.refine([FRAME], [FEATURES], [tracks])
    hit = np.flatnonzero(decode(result.rles[0]).any(0))
    return int(hit[0]), int(hit[-1]) + 1


def test_box_takes_what_is_drawn_and_none_what_is_tracked() -> None:
    assert columns(Draws(24, 104), 20, 100, "box") == (24, 104)
    assert columns(Draws(24, 104), 20, 100, "none") == (20, 100)


def test_auto_lies_between_both_where_they_agree() -> None:
    left, right = columns(Draws(24, 104), 20, 100, "auto")
    assert 20 < left < 24
    assert 100 < right < 104


def test_auto_keeps_the_tracker_where_they_disagree() -> None:
    assert columns(Draws(60, 120), 20, 100, "auto") == (20, 100)


@pytest.mark.parametrize(("cells", "kept"), [((36, 64), True), ((18, 32), False)])
def test_lines_that_the_decoder_is_too_coarse_for_are_the_trackers(cells: tuple[int, int], kept: bool) -> None:
    band = np.clip(ramp(20, 100, cells, WIDTH) / 16 + 0.5, 0, 1)
    band[cells[0] // 2, -cells[1] // 5 :] = 0.9  # a line of one cell beside it
    tracks = Tracks(
        3,
        np.array([5]),
        np.array([[20, 0, 128, 72]], np.float32),
        np.ones(1, np.float32),
        masks=torch.from_numpy(band)[None],
    )
    (result,) = Refiner(Draws(22, 102)).refine([FRAME], [FEATURES], [tracks])  # type: ignore[arg-type]
    mask = decode(result.rles[0])
    assert mask[36:38, 116:124].all() == mask[:, 116:].any() == kept
    hit = np.flatnonzero(mask[10])  # elsewhere both count
    assert 20 < hit[0] < 22
    assert 100 < hit[-1] + 1 < 102


def test_objects_of_few_cells_need_more_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = columns(Draws(30, 110), 20, 100, "auto")  # IoU 0.78: enough for large objects only
    monkeypatch.setattr("vidseg_pipelines.refiner.SMALL_CELLS", 19)  # the object has 19 of them
    left, right = columns(Draws(30, 110), 20, 100, "auto")
    assert kept == (20, 100)
    assert 20 < left < 30
    assert 100 < right < 110


def test_auto_prompts_with_the_trackers_mask_box_does_not() -> None:
    sam = Draws(24, 104)
    columns(sam, 20, 100, "auto")
    columns(sam, 20, 100, "box")
    assert sam.asked[0].masks is not None
    assert sam.asked[0].masks.shape == (1, *GEOMETRY.low_res)
    inside = sam.asked[0].masks[0][4, [2, 15, 29]]  # cells of 4 pixels: left of, in and right of the band
    assert inside[0] < -2 < 2 < inside[1]
    assert inside[2] < -2
    assert sam.asked[1].masks is None


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="refine 'boxes': allowed are auto, box, none"):
        RefineOptions("boxes")  # type: ignore[arg-type]


@pytest.mark.parametrize(("exclusive", "covered"), [(True, 1.0), (False, 0.0)])
def test_unsure_masks_with_backgrounds_of_their_own_do_not_add_up_to_an_object(exclusive: bool, covered: float) -> None:
    masks = torch.full((2, 36, 64), 0.4)
    ids, boxes = np.array([1, 2]), np.tile(np.array([0, 0, WIDTH, HEIGHT], np.float32), (2, 1))
    tracks = Tracks(3, ids, boxes, np.ones(2, np.float32), masks=masks, exclusive=exclusive)
    (result,) = Refiner(Draws(0, 1), RefineOptions("none")).refine([FRAME], [None], [tracks])  # type: ignore[arg-type]
    assert sum(decode(rle).mean() for rle in result.rles) == covered


def test_of_masks_with_backgrounds_of_their_own_the_surer_one_gets_a_pixel() -> None:
    masks = torch.stack([torch.full((36, 64), p) for p in (0.7, 0.9, 0.2)])
    boxes = np.tile(np.array([0, 0, WIDTH, HEIGHT], np.float32), (3, 1))
    tracks = Tracks(3, np.array([1, 2, 3]), boxes, np.ones(3, np.float32), masks=masks, exclusive=False)
    (result,) = Refiner(Draws(0, 1), RefineOptions("none")).refine([FRAME], [None], [tracks])  # type: ignore[arg-type]
    assert result.ids == (2,)
    assert decode(result.rles[0]).all()


@pytest.mark.parametrize("original", [(72, 128), (431, 300), (9, 14), (1080, 640)])
@pytest.mark.parametrize("config", [TINY, named_config("sam-hq-vit-tiny")], ids=["tiny", "official"])
def test_the_window_of_a_mask_holds_all_that_is_positive(original: tuple[int, int], config: SamConfig) -> None:
    rng = np.random.default_rng(2)
    geometry = frame_geometry(original, config)
    sizes = ((*geometry.between, geometry.low_res), ((40, 71),) * 3)
    for _ in range(20):
        row, column = rng.random(2)
        maps = []
        for _, _, (height, width) in sizes:
            one = torch.full((1, height, width), -0.01)
            y, x = int(row * height), int(column * width)
            one[0, y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = 8.0
            maps.append(one)
        crop = Crop(0, 0, original[1], original[0])
        layers = [
            layers_of(one, *between, crop, *(hits.numpy() for hits in reach(one)))[0]
            for one, (*between, _) in zip(maps, sizes, strict=True)
        ]
        for chosen in (layers[:1], layers[1:], layers):
            whole = [to_original_size(one.logits[None], one.padded, one.resized, original)[0] for one in chosen]
            expected = (sum(whole[1:], whole[0]) / len(whole)).clone()
            window = mean_window(chosen)
            assert (window is None) == all(one.bounds is None for one in chosen)
            if window is not None:
                torch.testing.assert_close(window.logits, expected[window.place], rtol=0, atol=1e-3)
                expected[window.place] = 0
            assert (expected <= 0).all()
