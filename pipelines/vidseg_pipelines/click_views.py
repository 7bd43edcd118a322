"""What clicks may mean: candidates for a mask, on the whole frame, on crops around the clicks, and in mirror images.

How they become one mask: :mod:`vidseg_pipelines.drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.masks.boxes import mask_box
from vidseg.masks.parts import Mask, parts_at
from vidseg.sam.config import Output
from vidseg.sam.mask_decoder import Candidates, stability_score
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.objectness import object_chance, promise
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import LEAST_PX, LOGIT_LIMIT, Crop, Zoom, crop_around, crop_side, zooms

SCALES = (1 / 2, 1 / 4)
"""Sides of the crops around a click, as fractions of the frame's longer side."""
NEAR = 0.5
"""Power of these fractions by which candidates on crops promise less: seen from near, parts of a thing look whole."""

Points = Sequence[tuple[float, float]]


class Drawn(NamedTuple):
    """Logits (H, W) of an object's mask in a frame, positive inside, and the quality that the network predicts."""

    logits: Float[Tensor, "H W"]
    quality: float

    @property
    def mask(self) -> Mask:
        """The mask (H, W)."""
        return np.asarray((self.logits > 0).cpu().numpy())


def best_view(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompts: PromptBatch,
    clicked: Points,
    zoom: Zoom,
    output: Output | None,
) -> Drawn:
    """The best candidate for clicks on the whole frame and on crops around them. A single click has three per view."""
    frame = features.geometry.original
    crops = [Crop(0, 0, frame[1], frame[0])] + (_crops(clicked, frame) if zooms(sam.config, zoom) else [])
    best: tuple[Tensor, Mask, Crop, float] | None = None
    best_score = -1.0
    single = len(prompts) == 1 and prompts.points is not None and prompts.points.shape[1] == 1
    for number, crop in enumerate(crops):
        view = _look(
            sam,
            crop.of(image),
            _clicks_in(crop, prompts),
            output,
            "all" if single else "single",
            features=None if number else features,
            mirrored=len(crops) > 1,
        )
        for logits, quality, chance in view:
            places = [(x - crop.x1, y - crop.y1) for x, y in clicked]
            mask = (logits > 0).cpu().numpy()
            part = parts_at(mask, places)
            score = float(promise(quality, stability_score(logits).cpu(), chance)) if part.any() else 0.0
            score *= (max(crop.size) / max(frame)) ** NEAR
            part = part if part.any() else mask
            if best is None or (score > best_score and not crop.cuts(part, frame)):
                best, best_score = (logits, part, crop, float(quality)), score
    assert best is not None
    logits, part, crop, predicted = best
    return Drawn(_placed(keep_part(logits, part), crop, frame), predicted)


def look_again(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    drawn: Drawn,
    prompts: PromptBatch,
    clicked: Points,
    output: Output | None,
) -> Drawn:
    """An object drawn anew from its box and the clicks; as it was where they do not hit what is drawn."""
    frame, box = drawn.mask.shape, mask_box(drawn.mask)
    crop = crop_around(box, (frame[0], frame[1]))
    asked = replace(_clicks_in(crop, prompts), boxes=crop.shift(box[None]))
    ((drawn_again, quality, _),) = _look(sam, crop.of(image), asked, output, side=crop_side(sam.config))
    logits = _placed(drawn_again, crop, (frame[0], frame[1]))
    part = parts_at((logits > 0).cpu().numpy(), clicked)
    return Drawn(keep_part(logits, part), float(quality)) if part.any() else drawn


def _look(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    asked: PromptBatch,
    output: Output | None,
    candidates: Candidates = "single",
    *,
    features: FrameFeatures | None = None,
    side: int | None = None,
    mirrored: bool = True,
) -> list[tuple[Float[Tensor, "H W"], Float[Tensor, ""], Float[Tensor, ""]]]:
    """Logits, quality and :func:`object_chance` of the answers to one prompt: means over an image and its mirror image.

    ``features``: of the image, where it is encoded already.
    """
    images = [image, np.ascontiguousarray(image[:, ::-1])] if mirrored else [image]
    views = [*([] if features is None else [features]), *sam.encode(images[features is not None :], side)]
    prompts = [asked, _mirrored(asked, image.shape[1])][: len(views)]
    answers = sam.decode(views, prompts, output, candidates)
    masks = [answer.upsampled()[0].clamp(-LOGIT_LIMIT, LOGIT_LIMIT) for answer in answers]
    masks[1:] = [mask.flip(-1) for mask in masks[1:]]
    quality = torch.stack([answer.iou[0].cpu() for answer in answers]).mean(0)
    judge = sam.objectness if candidates == "all" else None
    chance = [object_chance(judge, *one)[0] for one in zip(views, answers, prompts, strict=True)]
    return list(zip(torch.stack(masks).mean(0), quality, torch.stack(chance).mean(0), strict=True))


def _mirrored(prompts: PromptBatch, width: int) -> PromptBatch:
    """Boxes and points in the mirror image of an image of this width."""
    boxes, points = prompts.boxes, prompts.points
    if boxes is not None:
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    if points is not None:
        points = torch.stack([width - points[..., 0], points[..., 1]], -1)
    return replace(prompts, boxes=boxes, points=points)


def _clicks_in(crop: Crop, prompts: PromptBatch) -> PromptBatch:
    """Clicks on a frame in pixels of a crop; those outside of it say nothing."""
    assert prompts.points is not None and prompts.labels is not None
    points = crop.shift(prompts.points)
    outside = ((points < 0) | (points >= torch.tensor(crop.size[::-1]))).any(-1)
    return PromptBatch(points=points, labels=torch.where(outside, -1, prompts.labels))


def _placed(logits: Float[Tensor, "h w"], crop: Crop, frame: tuple[int, int]) -> Float[Tensor, "H W"]:
    """Logits of a crop as those of the frame, which has nothing elsewhere."""
    if crop.size == frame:
        return logits
    whole = logits.new_full(frame, -LOGIT_LIMIT)
    whole[crop.y1 : crop.y2, crop.x1 : crop.x2] = logits
    return whole


def _crops(clicked: Points, frame: tuple[int, int]) -> list[Crop]:
    """Crops around clicks, that hold all of them."""
    places = np.array(clicked)
    low, high = places.min(0), places.max(0)
    crops = []
    for side in (scale * max(frame) for scale in SCALES):
        if side >= LEAST_PX and 2 * float((high - low).max()) <= side:
            middle = (low + high) / 2
            crops.append(crop_around(np.concatenate([middle - side / 2, middle + side / 2]), frame, 1.0))
    return crops


def keep_part(logits: Tensor, mask: Mask) -> Tensor:
    """Logits that are positive in ``mask`` only."""
    return torch.where(torch.from_numpy(mask).to(logits.device), logits, logits.clamp(max=-LOGIT_LIMIT))
