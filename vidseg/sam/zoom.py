"""Looking closer: a square crop around an object, encoded beside or in place of the whole frame.

A small network sees more of an object when the object fills its input. A crop is as wide as :data:`FACTOR` times the
longer side of the object's box, moved and cut so that it lies in the frame.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.masks.boxes import mask_box
from vidseg.masks.paste import upsample_window
from vidseg.sam.config import STRIDE, InputConfig, Output
from vidseg.sam.geometry import Geometry, frame_geometry
from vidseg.sam.mask_decoder import Candidates
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch

Zoom = Literal["auto", "always", "never"]
Size = tuple[int, int]

FACTOR = 1.5
LEAST_PX = 64
"""Crops are at least this wide, in pixels of the frame."""
SIDE = 3 / 4
"""Side of an encoded crop as a share of the network's image size: the size at which training shows objects."""
GAIN = 1.25
"""In videos "auto" looks closer where a crop shows an object larger than the whole frame does, by this factor."""
MIN_SIDE = 192
"""Smaller inputs show too little around the object."""
LOGIT_LIMIT = 8.0
"""Logits of a frame and of a crop of it are clipped to this before their mean is taken; so are mask prompts."""


def check_zoom(zoom: str) -> None:
    """Refuse a zoom that does not exist."""
    if zoom not in get_args(Zoom):
        raise UsageError(f"zoom {zoom!r}: allowed are {', '.join(get_args(Zoom))}")


class Crop(NamedTuple):
    """Pixels of a frame, right and bottom exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.y2 - self.y1, self.x2 - self.x1

    def of(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """This part of an image (H, W, 3)."""
        return np.ascontiguousarray(image[self.y1 : self.y2, self.x1 : self.x2])

    def cuts(self, mask: npt.NDArray[np.bool_], frame: Size) -> bool:
        """Does a mask in this crop reach a border of it that is none of the frame's, (height, width)?"""
        return bool(
            (self.y1 > 0 and mask[0].any())
            or (self.x1 > 0 and mask[:, 0].any())
            or (self.y2 < frame[0] and mask[-1].any())
            or (self.x2 < frame[1] and mask[:, -1].any())
        )

    def shift(self, xy: npt.NDArray[Any] | Tensor) -> Float[Tensor, "*n k"]:
        """Boxes (..., 4) or points (..., 2) of the frame in pixels of the crop."""
        corner = torch.tensor([self.x1, self.y1], dtype=torch.float64)
        return (torch.as_tensor(xy) - corner.tile(xy.shape[-1] // 2)).float()


def crop_around(box: npt.NDArray[Any] | Tensor, frame: Size, factor: float = FACTOR) -> Crop:
    """The crop around a box XYXY in a frame of (height, width); never empty, wherever the box lies."""
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(factor * max(x2 - x1, y2 - y1), LEAST_PX)
    spans = []
    for middle, length in (((x1 + x2) / 2, frame[1]), ((y1 + y2) / 2, frame[0])):
        extent = min(side, length)
        start = min(max(middle - extent / 2, 0.0), length - extent)
        spans.append((math.floor(start), min(length, math.ceil(start + extent))))
    (left, right), (top, bottom) = spans
    return Crop(left, top, right, bottom)


def zooms(config: InputConfig, zoom: Zoom) -> bool:
    """Whether single masks are drawn on crops: "auto" leaves networks alone that take inputs of one size only.

    Those are the official ones, whose inputs are large; what a crop gives them was not measured.
    """
    return zoom == "always" or (zoom == "auto" and config.pad == "stride")


def crop_side(config: InputConfig) -> int:
    """Long side at which the crop for a single mask is encoded."""
    return round(SIDE * config.image_size / 32) * 32 if config.pad == "stride" else config.image_size


def plan_crops(boxes: npt.NDArray[Any], frame: Size, config: InputConfig, zoom: Zoom) -> tuple[list[Crop], int] | None:
    """One crop per box of a video frame and the side to encode them at, or None: the whole frame.

    "always": crops, whatever they cost. "auto": crops that together cost no more than the whole frame, which then need
    not be encoded, where every object gains by them.
    """
    if not len(boxes) or not zooms(config, zoom):
        return None
    crops = [crop_around(box, frame) for box in boxes]
    if zoom == "always":
        return crops, crop_side(config)
    whole = frame_geometry(frame, config)
    budget = math.sqrt(whole.padded[0] * whole.padded[1] / len(boxes))
    side = min(crop_side(config), 2 * STRIDE * math.floor(budget / (2 * STRIDE)))
    gain = min(side / max(crop.size) for crop in crops) / (max(whole.resized) / max(frame))
    return (crops, side) if side >= MIN_SIDE and gain >= GAIN else None


def cut_maps(maps: Float[Tensor, "n h w"], frame: Size, crop: Crop) -> Float[Tensor, "n ch cw"]:
    """Maps of a whole frame, at any resolution, as maps of a crop at the frame's resolution.

    Of the whole frame they stay as they are.
    """
    if crop.size == frame:
        return maps
    size = (maps.shape[1], maps.shape[2])
    return upsample_window(maps, size, size, frame, crop)


def to_low_res(maps: Float[Tensor, "n h w"], geometry: Geometry, outside: float) -> Float[Tensor, "n lh lw"]:
    """Maps of an image at the decoder's low resolution; the padding gets the value ``outside``."""
    low, inside = geometry.low_res, geometry.low_res_frame
    maps = F.interpolate(maps[:, None], inside, mode="bilinear", align_corners=False, antialias=True)[:, 0]
    return F.pad(maps, (0, low[1] - inside[1], 0, low[0] - inside[0]), value=outside)


def logits_of(probabilities: Float[Tensor, "n h w"], limit: float) -> Float[Tensor, "n h w"]:
    """Probabilities as logits within +- ``limit``, such as mask prompts are."""
    return torch.logit(probabilities, 1 / (1 + math.exp(limit)))


def draw_closely(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompts: PromptBatch,
    zoom: Zoom,
    output: Output | None = None,
    candidates: Candidates = "single",
) -> tuple[Float[Tensor, "n m H W"], Float[Tensor, "n m"]]:
    """Logits at the size of the image and predicted qualities for boxes or points on it, with a second, closer look.

    The closer look at an object goes around its box, or around the mask that the points give, which is a prompt then;
    the mean of both looks counts. Where several candidates are asked for, there is none.
    """
    (answer,) = sam.decode([features], [prompts], output, candidates)
    logits = answer.upsampled()
    if candidates == "all" or not zooms(sam.config, zoom):
        return logits, answer.iou
    for row in range(len(prompts)):
        if bool((logits[row, 0] > 0).any()):
            logits[row, 0] = look_closer(sam, image, logits[row, 0], prompts, output, row=row)
    return logits, answer.iou


def look_closer(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    first: Float[Tensor, "H W"],
    prompts: PromptBatch,
    output: Output | None = None,
    *,
    row: int = 0,
) -> Float[Tensor, "H W"]:
    """The mean of ``first``, logits of an object of which some are positive, and those drawn on a crop around it."""
    box = mask_box((first > 0).cpu().numpy()) if prompts.boxes is None else prompts.boxes[row]
    crop = crop_around(box, (first.shape[0], first.shape[1]))
    (closer,) = sam.encode([crop.of(image)], crop_side(sam.config))
    asked = _in_crop(prompts, row, first, crop, closer.geometry)
    (second,) = sam.decode([closer], [asked], output)
    total = first.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) - LOGIT_LIMIT
    inside = total[crop.y1 : crop.y2, crop.x1 : crop.x2]
    inside += second.upsampled()[0, 0].clamp(-LOGIT_LIMIT, LOGIT_LIMIT) + LOGIT_LIMIT
    return total / 2


def _in_crop(prompts: PromptBatch, row: int, first: Tensor, crop: Crop, geometry: Geometry) -> PromptBatch:
    """One prompt of a frame in pixels of a crop; points come with the mask (H, W) that was drawn for them."""
    boxes = None if prompts.boxes is None else crop.shift(prompts.boxes[row : row + 1])
    if prompts.points is None or prompts.labels is None:
        return PromptBatch(boxes=boxes)
    points, labels = crop.shift(prompts.points[row : row + 1]), prompts.labels[row : row + 1]
    outside = ((points < 0) | (points > torch.tensor(crop.size[::-1]))).any(-1)
    drawn = (first[None, crop.y1 : crop.y2, crop.x1 : crop.x2] > 0).float()
    masks = logits_of(to_low_res(drawn, geometry, 0.0), LOGIT_LIMIT)
    return PromptBatch(boxes, points, torch.where(outside, -1, labels), masks)
