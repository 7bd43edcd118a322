"""Objects to follow when nobody names any: a few large, stable, non-overlapping automatic masks of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.masks.boxes import mask_box
from vidseg.masks.parts import large_parts, parts_at
from vidseg.sam.model import FrameFeatures, SegmentAnything, stability_score
from vidseg.sam.prompts import Prompts
from vidseg.sam.zoom import Zoom, draw_closely

NOTHING = -1.0
"""Logit of what belongs to a mask but not to the part that was clicked."""


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """What counts as an object worth following.

    ``points_per_side``: the grid of clicks. ``min_area``, ``max_area``: share of the frame. ``max_overlap``: share of
    the smaller of two masks that the other may cover. ``max_border``: share of the frame's border that a mask may
    touch, which tells objects from walls, floors and skies.

    With a judge of objects (:mod:`vidseg.sam.objectness`) ``min_objectness`` (0..1) is what it must say at least.
    Without: ``min_stability`` (0..1), stability score (Segment Anything, appendix B); ``min_quality``, predicted
    quality, and ``min_share`` of the best one on the frame: networks differ in what they call good.
    """

    points_per_side: int = 12
    min_objectness: float = 0.1
    min_quality: float = 0.3
    min_share: float = 0.6
    min_stability: float = 0.86
    min_area: float = 0.004
    max_area: float = 0.5
    max_overlap: float = 0.2
    max_border: float = 0.3


class ClickMasks(NamedTuple):
    """Candidates of a grid of clicks: the part of each mask that its click hit.

    ``logits`` are at the decoder's low resolution and show the frame without padding.
    """

    logits: Float[Tensor, "k h w"]
    iou: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]


@torch.no_grad()
def click_masks(sam: SegmentAnything, features: FrameFeatures, points_per_side: int) -> ClickMasks:
    """All three candidates of every click that hit what they show; on the CPU."""
    clicks = _grid(points_per_side, features)
    prompts = Prompts(points=clicks[:, None], labels=np.ones((len(clicks), 1), np.int64))
    (answer,) = sam.decode([features], [prompts], candidates="all")
    rows, columns = features.geometry.low_res_frame
    logits = answer.logits[..., :rows, :columns].flatten(0, 1)
    stability, iou, logits = stability_score(logits).cpu(), answer.iou.flatten().cpu(), logits.cpu()
    scale = np.array([columns, rows]) / np.array(features.geometry.original[::-1])
    places = np.minimum(np.repeat((clicks * scale).astype(int), answer.iou.shape[1], axis=0), [columns - 1, rows - 1])
    parts = np.stack([parts_at(m, [tuple(xy)]) for m, xy in zip(logits.numpy() > 0, places, strict=True)])
    hit = torch.from_numpy(parts.any((1, 2)))
    logits = torch.where(torch.from_numpy(parts), logits, logits.clamp(max=NOTHING))
    return ClickMasks(logits[hit], iou[hit], stability[hit])


def find_objects(
    sam: SegmentAnything,
    features: FrameFeatures,
    *,
    max_objects: int,
    image: npt.NDArray[np.uint8] | None = None,
    zoom: Zoom = "auto",
    options: DiscoveryOptions | None = None,
) -> list[npt.NDArray[np.bool_]]:
    """Up to ``max_objects`` disjoint masks (H, W) of a frame, the most prominent first.

    A grid of clicks gives candidates; the good ones that do not overlap are drawn again from their boxes, which says
    better than a click what is meant: with the ``image`` (H, W, 3) at hand also closely, see :mod:`vidseg.sam.zoom`.
    Where none is good the most promising is taken; no object is an answer only where nothing has the size of one.
    """
    options = options or DiscoveryOptions()
    found = click_masks(sam, features, options.points_per_side)
    masks = found.logits.numpy() > 0
    if not len(masks):
        return []
    area = masks.mean((1, 2))
    fit = (area >= options.min_area) & (area <= options.max_area)
    fit &= np.array([_border_share(mask) <= options.max_border for mask in masks])
    iou, stability = found.iou.numpy(), found.stability.numpy()
    if sam.objectness is not None:
        judged = sam.objectness.judge(features.embedding, found.logits, found.iou, found.stability)
        rank = judged.sigmoid().cpu().numpy()
        good = rank >= options.min_objectness
    else:
        rank = iou * stability * np.sqrt(area)
        good = (iou >= max(options.min_quality, options.min_share * float(iou.max()))) & (
            stability >= options.min_stability
        )
    ranked = [i for i in (-rank).argsort(kind="stable") if fit[i]]
    prominent = [i for i in ranked if good[i]] or ranked[:1]
    chosen = _without_overlaps([masks[i] for i in prominent], options.max_overlap, max_objects)
    scale = np.array(masks.shape[:0:-1]) / np.array(features.geometry.original[::-1])
    return _draw_again(sam, features, [mask_box(mask) / np.tile(scale, 2) for mask in chosen], image, zoom)


def _draw_again(
    sam: SegmentAnything,
    features: FrameFeatures,
    boxes: list[npt.NDArray[Any]],
    image: npt.NDArray[np.uint8] | None,
    zoom: Zoom,
) -> list[npt.NDArray[np.bool_]]:
    """Masks (H, W) of boxes in original pixels, disjoint (a pixel belongs to whom it was given first), none empty."""
    if not boxes:
        return []
    prompts = Prompts(boxes=np.stack(boxes))
    if image is None:
        (answer,) = sam.decode([features], [prompts])
        drawn = answer.upsampled()
    else:
        drawn, _ = draw_closely(sam, image, features, prompts, zoom)
    free = np.ones(features.geometry.original, np.bool_)
    found: list[npt.NDArray[np.bool_]] = []
    for logits in drawn[:, 0].cpu().numpy():
        mask = (logits > 0) & free
        if mask.any():
            mask = large_parts(mask)
            free &= ~mask
            found.append(mask)
    return found


def _grid(points_per_side: int, features: FrameFeatures) -> npt.NDArray[np.float64]:
    """Clicks (K, 2) at the centres of a grid of cells over the frame, in original pixels (x, y)."""
    height, width = features.geometry.original
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    return np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 2)


def _border_share(mask: npt.NDArray[np.bool_]) -> float:
    """Share of the frame's outermost pixels that belong to a mask."""
    return float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean())


def _without_overlaps(
    masks: list[npt.NDArray[np.bool_]], max_overlap: float, count: int
) -> list[npt.NDArray[np.bool_]]:
    """The first ``count`` masks that do not overlap with an earlier one."""
    chosen: list[npt.NDArray[np.bool_]] = []
    for mask in masks:
        if len(chosen) == count:
            break
        if all((mask & other).sum() <= max_overlap * min(mask.sum(), other.sum()) for other in chosen):
            chosen.append(mask)
    return chosen
