"""The prompts of the paper's tables, made from a ground-truth mask: boxes, boxes with noise, points, coarse masks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.evaluation.box_noise import CANVAS, noisy_boxes, prompt_box
from vidseg.masks.noise import noise_mask
from vidseg.sam.geometry import Geometry
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.training.simulated_prompts import LOGIT_BOUND
from vidseg_pipelines.reproduce.config import ReproduceConfig

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
FILE_LOGIT = 255.0
"""Value of the foreground in the mask prompts that HQ-SAM was trained with; the background is 0."""


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """The prompt for one object: a box (4,), points (P, 2) with labels (P,), or a coarse mask (h, w) in 0..1."""

    box: Floats | None = None
    points: Floats | None = None
    labels: npt.NDArray[np.int64] | None = None
    coarse: Floats | None = None


def object_rng(config: ReproduceConfig, trial: int, item: str, number: int = 0) -> np.random.Generator:
    """The random stream of object ``number`` of an image: it depends on nothing but its names and the seed."""
    return np.random.default_rng((config.seed, trial, zlib.crc32(item.encode()), number))


def simulate_prompt(
    config: ReproduceConfig, rng: np.random.Generator, mask: Mask, coarse: Floats | None = None
) -> ObjectPrompt:
    """The prompt that ``config`` asks for, from a mask (H, W) with at least one pixel, in its pixels.

    Boxes are those of the published evaluator: first and last pixel, both inclusive. Noise is drawn on a canvas of
    1024 x 1024 that stands for the whole image. ``coarse``: a given coarse mask (h, w) in 0..1 of the whole image; by
    default the noisy mask of HQ-SAM's training.
    """
    height, width = mask.shape
    if config.prompt == "points":
        return _points(rng, mask, config.points, config.negative_points)
    if config.prompt == "coarse-masks":
        made = noise_mask(rng, mask.astype(np.float32) * 255) / np.float32(255) if coarse is None else coarse
        return ObjectPrompt(coarse=made)
    box = prompt_box(mask)
    if config.prompt == "noisy-boxes":
        scale = np.array([CANVAS / width, CANVAS / height] * 2, np.float32)
        box = noisy_boxes(box[None] * scale, config.noise, rng)[0] / scale
    return ObjectPrompt(box=box)


def center_point(mask: Mask) -> Floats:
    """The pixel (x, y) farthest from the outside of a mask (H, W); the first of several, row by row.

    The centre of SAM and HQ-SAM (supplement, section 7): the maximum of the distance transform inside the mask, where
    the border of the image counts as outside.
    """
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array([x, y], np.float32)


def _points(rng: np.random.Generator, mask: Mask, positive: int, negative: int) -> ObjectPrompt:
    """One positive point is the centre, several are distinct pixels of the mask; negative ones lie anywhere outside.

    Where a mask has fewer pixels than points, the rest are points with label -1, which means "no point".
    """
    on = center_point(mask)[None] if positive == 1 else _drawn(rng, mask, positive)
    off = _drawn(rng, ~mask, negative)
    labels = np.concatenate([np.ones(len(on), np.int64), np.zeros(len(off), np.int64)])
    lacking = positive + negative - len(labels)
    points = np.concatenate([on, off, np.zeros((lacking, 2), np.float32)])
    return ObjectPrompt(points=points, labels=np.concatenate([labels, np.full(lacking, -1, np.int64)]))


def _drawn(rng: np.random.Generator, mask: Mask, count: int) -> Floats:
    places = np.flatnonzero(mask)
    chosen = rng.choice(places, min(count, len(places)), replace=False)
    rows, columns = np.divmod(chosen, mask.shape[1])
    return np.stack([columns, rows], axis=1).astype(np.float32)


def stack_prompts(asked: Sequence[ObjectPrompt], geometry: Geometry, squashed: bool) -> PromptBatch:
    """Prompts of one kind on one image as the decoder wants them.

    Coarse masks become 0 and 255 in squashed images, as in the training of HQ-SAM, and logits of at most 10 elsewhere.
    """
    first = asked[0]
    if first.coarse is not None:
        return PromptBatch(
            masks=np.stack([_low_res(a.coarse, geometry, squashed) for a in asked if a.coarse is not None])
        )
    if first.box is not None:
        return PromptBatch(boxes=np.stack([a.box for a in asked if a.box is not None]))
    points = np.stack([a.points for a in asked if a.points is not None])
    return PromptBatch(points=points, labels=np.stack([a.labels for a in asked if a.labels is not None]))


def _low_res(coarse: Floats, geometry: Geometry, squashed: bool) -> Floats:
    rows, columns = geometry.low_res_frame
    small = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    outside, values = -LOGIT_BOUND, (2 * small - 1) * LOGIT_BOUND
    if squashed:
        outside, values = 0.0, np.where(small > 0.5, FILE_LOGIT, 0.0)
    canvas = np.full(geometry.low_res, outside, np.float32)
    canvas[:rows, :columns] = values
    return canvas


def xyxy(value: Any, where: str) -> Floats:
    """A box [x, y, width, height] of a json file as float32 (4,), XYXY.

    Raises:
        InputError: not four finite numbers, or a negative side.
    """
    fine = isinstance(value, (list, tuple)) and len(value) == 4
    if not fine or not all(isinstance(v, (int, float)) and np.isfinite(v) for v in value) or min(value[2:]) < 0:
        raise InputError(f"{where} has the box {value!r}: expected [x, y, width, height] in pixels")
    x, y, width, height = value
    return np.array([x, y, x + width, y + height], np.float32)
