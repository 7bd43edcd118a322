"""Crops around objects: where they lie, when they pay, and that what is drawn on them lands where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from toys import TINY
from vidseg.errors import UsageError
from vidseg.masks.rle import decode
from vidseg.sam.config import SamConfig
from vidseg.sam.geometry import Geometry, frame_geometry
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Crop, Zoom, crop_around, cut_maps, draw_closely, plan_crops
from vidseg.types import Frame, Tracks
from vidseg_pipelines.refiner import RefineOptions, Refiner

COMPACT = replace(TINY, image_size=512)
FRAME = (480, 854)


def resized_boxes(prompts: PromptBatch, geometry: Geometry) -> list[list[int]]:
    """Boxes in cells of the low resolution; none for points."""
    fields = prompts.resized(geometry)
    return (fields["boxes"] / 4).round().int().tolist() if "boxes" in fields else []


class SeesBright:
    """A network whose masks are the bright pixels in the box, at its low resolution; it remembers its inputs."""

    def __init__(self, config: SamConfig = COMPACT) -> None:
        self.config, self.pixels, self.asked = config, list[int](), list[PromptBatch]()

    def encode(self, images: Sequence[np.ndarray], side: int | None = None) -> list[FrameFeatures]:
        geometries = [frame_geometry(image.shape[:2], self.config, side) for image in images]
        self.pixels += [g.padded[0] * g.padded[1] for g in geometries]
        pictures = [torch.from_numpy(image).permute(2, 0, 1).float() for image in images]
        return [FrameFeatures(p, None, torch.zeros(1, 1, 3), g) for p, g in zip(pictures, geometries, strict=True)]

    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: object = None,
        *_: object,
        **__: object,
    ) -> list[Masks]:
        self.asked += prompts
        answers = []
        for feature, prompt in zip(features, prompts, strict=True):
            g = feature.geometry
            rows, columns = g.low_res_frame
            small = torch.nn.functional.interpolate(feature.embedding[None, :1], (rows, columns), mode="area")[0]
            logits = torch.full((len(prompt), 1, *g.low_res), -10.0)
            logits[..., :rows, :columns] = (small - 128) / 12.8
            for one, (x1, y1, x2, y2) in zip(logits, resized_boxes(prompt, g), strict=False):
                outside = torch.ones(g.low_res, dtype=torch.bool)
                outside[y1:y2, x1:x2] = False
                one[:, outside] = -10.0
            answers.append(Masks(logits, torch.ones(len(prompt), 1), g))
        return answers


def comb(x: int, y: int) -> np.ndarray:
    """An object of thin teeth, 60 pixels wide and high, with its corner at (x, y)."""
    mask = np.zeros(FRAME, np.bool_)
    mask[y : y + 60, x : x + 60 : 6] = mask[y : y + 60, x + 1 : x + 61 : 6] = True
    mask[y : y + 12, x : x + 60] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def box_of(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)


def picture(*masks: np.ndarray) -> Frame:
    rgb = np.repeat(np.where(np.any(masks, axis=0), 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    return Frame(0, 0, 0.0, rgb)


def refined(zoom: Zoom, *masks: np.ndarray, sam: SeesBright | None = None) -> list[np.ndarray]:
    """What is drawn where a tracker knows the boxes of ``masks`` only."""
    boxes = np.stack([box_of(mask) for mask in masks])
    tracks = Tracks(0, np.arange(1, len(masks) + 1), boxes, np.ones(len(masks), np.float32))
    refiner = Refiner(sam or SeesBright(), RefineOptions(zoom=zoom))  # type: ignore[arg-type]
    (result,) = refiner.refine([picture(*masks)], [None], [tracks])
    return [decode(rle) for rle in result.rles]


@pytest.mark.parametrize(
    "box",
    [(100, 100, 200, 140), (0, 0, 30, 60), (840, 470, 854, 480), (-50, -50, -10, -10), (5, 5, 5, 5), (0, 0, 854, 480)],
)
def test_a_crop_is_half_as_wide_again_as_its_box_and_lies_in_the_frame(box: tuple[float, ...]) -> None:
    crop = crop_around(np.array(box), FRAME)
    assert 0 <= crop.x1 < crop.x2 <= FRAME[1]
    assert 0 <= crop.y1 < crop.y2 <= FRAME[0]
    side = max(1.5 * max(box[2] - box[0], box[3] - box[1]), 64)
    assert abs(crop.size[1] - min(side, FRAME[1])) <= 1
    assert abs(crop.size[0] - min(side, FRAME[0])) <= 1
    inside = np.clip(box, 0, [FRAME[1], FRAME[0]] * 2)
    assert (np.array(crop[:2]) <= inside[:2]).all() and (inside[2:] <= np.array(crop[2:])).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_in_videos_crops_cost_no_more_than_the_frame_that_they_replace(count: int) -> None:
    boxes = np.array([[40 + 150 * i, 100, 140 + 150 * i, 180] for i in range(count)], np.float32)
    plan = plan_crops(boxes, FRAME, COMPACT, "auto")
    assert plan is not None
    crops, side = plan
    whole = frame_geometry(FRAME, COMPACT).padded
    assert len(crops) == count
    assert sum(np.prod(frame_geometry(c.size, COMPACT, side).padded) for c in crops) <= whole[0] * whole[1]


def test_crops_that_gain_nothing_or_cannot_be_had_are_not_planned() -> None:
    small, large = [40, 100, 140, 180], [100, 0, 700, 480]
    assert plan_crops(np.array([large], np.float32), FRAME, COMPACT, "auto") is None
    assert plan_crops(np.array([small, large], np.float32), FRAME, COMPACT, "auto") is None
    assert plan_crops(np.array([small] * 12, np.float32), FRAME, COMPACT, "auto") is None
    assert plan_crops(np.zeros((0, 4), np.float32), FRAME, COMPACT, "always") is None
    assert plan_crops(np.array([small], np.float32), FRAME, COMPACT, "never") is None
    official = replace(COMPACT, pad="square", image_size=1024)
    assert plan_crops(np.array([small], np.float32), FRAME, official, "auto") is None
    plan = plan_crops(np.array([small], np.float32), FRAME, official, "always")
    assert plan is not None and plan[1] == 1024  # its inputs have one size


def test_maps_are_cut_at_the_pixels_of_the_crop() -> None:
    maps = torch.arange(48 * 86, dtype=torch.float32).view(1, 48, 86)
    whole = torch.nn.functional.interpolate(maps[None], FRAME, mode="bilinear")[0]
    crop = Crop(100, 50, 300, 260)
    torch.testing.assert_close(cut_maps(maps, FRAME, crop), whole[:, 50:260, 100:300], atol=1e-2, rtol=1e-5)
    assert cut_maps(maps, FRAME, Crop(0, 0, FRAME[1], FRAME[0])) is maps


@pytest.mark.parametrize("zoom", ["auto", "always"])
def test_thin_parts_come_out_on_crops_at_their_place_in_the_frame(zoom: Zoom) -> None:
    masks = comb(30, 40), comb(700, 380)
    close, far = refined(zoom, *masks), refined("never", *masks)
    for mask, near, whole in zip(masks, close, far, strict=True):
        assert iou(near, mask) > 0.9
        assert iou(whole, mask) < 0.8


def test_frames_whose_objects_are_drawn_on_crops_are_not_encoded() -> None:
    sam = SeesBright()
    refined("auto", comb(30, 40), sam=sam)
    assert len(sam.pixels) == 1
    assert sam.pixels[0] <= 512 * 288


def test_boxes_alone_see_whole_frames_as_in_the_paper_unless_crops_are_asked_for() -> None:
    sam, tracks = SeesBright(), Tracks(0, np.array([1]), box_of(comb(30, 40))[None], np.ones(1, np.float32))
    for zoom, pixels in (("auto", 512 * 288), ("always", 384 * 384)):
        sam.pixels.clear()
        Refiner(sam, RefineOptions("box", zoom=zoom)).refine([picture(comb(30, 40))], [None], [tracks])  # type: ignore[arg-type]
        assert sam.pixels == [pixels]


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_second_look_at_a_still_image_draws_what_the_first_blurs(kind: str) -> None:
    mask = comb(200, 200)
    x1, y1 = 230.0, 202.0
    prompts = (
        PromptBatch(boxes=box_of(mask)[None])
        if kind == "box"
        else PromptBatch(points=np.array([[[x1, y1], [600, 20]]]), labels=np.array([[1, 0]]))
    )
    found = {}
    for zoom in ("auto", "never"):
        sam, image = SeesBright(), picture(mask).rgb
        logits, _ = draw_closely(sam, image, sam.encode([image])[0], prompts, zoom)  # type: ignore[arg-type]
        found[zoom] = iou(logits[0, 0].numpy() > 0, mask)
        if kind == "point" and zoom == "auto":  # the click that the crop does not show says nothing there
            assert sam.asked[1].labels is not None and sam.asked[1].labels.tolist() == [[1, -1]]
            assert sam.asked[1].masks is not None and sam.asked[1].masks.max() > 7
    assert found["auto"] > found["never"] + 0.1


def test_an_unknown_zoom_is_refused() -> None:
    with pytest.raises(UsageError, match="zoom 'near': allowed are auto, always, never"):
        RefineOptions(zoom="near")  # type: ignore[arg-type]
