"""Objects to follow when nobody names any: a few large, stable, non-overlapping automatic masks of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.masks.boxes import mask_box
from vidseg.masks.parts import large_parts, parts_at
from vidseg.sam.model import FrameFeatures, Sam, stability_score
from vidseg.sam.prompts import Prompts


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """What counts as an object worth following.

    ``points_per_side``: the grid of clicks. ``min_stability`` (0..1): stability score (Segment Anything, appendix B).
    ``min_quality``: predicted quality, and ``min_share`` of the best one on the frame; networks differ in what they
    call good. ``min_area``, ``max_area``: share of the frame. ``max_overlap``: share of the
    smaller of two masks that the other may cover. ``max_border``: share of the frame's border that it may touch, which
    tells objects from walls, floors and skies.
    """

    points_per_side: int = 12
    min_quality: float = 0.3
    min_share: float = 0.6
    min_stability: float = 0.86
    min_area: float = 0.004
    max_area: float = 0.5
    max_overlap: float = 0.2
    max_border: float = 0.3


def find_objects(
    sam: Sam, features: FrameFeatures, *, max_objects: int, options: DiscoveryOptions | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Up to ``max_objects`` disjoint masks (H, W) of a frame, the most prominent first; none is a possible answer.

    A grid of clicks gives candidates; the good ones that do not overlap are drawn again from their boxes, which says
    better than a click what is meant.
    """
    options = options or DiscoveryOptions()
    clicks = _grid(options.points_per_side, features)
    prompts = Prompts(points=clicks[:, None], labels=np.ones((len(clicks), 1), np.int64))
    (answer,) = sam.decode([features], [prompts], candidates="all")
    rows, columns = features.geometry.low_res_frame
    logits = answer.logits[..., :rows, :columns].flatten(0, 1)
    scale = np.array(logits.shape[:0:-1]) / np.array(features.geometry.original[::-1])
    places = np.repeat((clicks * scale).astype(int), answer.iou.shape[1], axis=0)
    stability = stability_score(logits).cpu().numpy()
    iou = answer.iou.flatten().cpu().numpy()
    least = max(options.min_quality, options.min_share * float(iou.max()))
    good = np.flatnonzero((iou >= least) & (stability >= options.min_stability))
    ends = np.array(logits.shape[:0:-1]) - 1
    masks = [
        parts_at(mask, [tuple(np.minimum(place, ends))])
        for mask, place in zip(logits[good].cpu().numpy() > 0, places[good], strict=True)
    ]
    area = np.array([mask.mean() for mask in masks])
    prominent = [
        i
        for i in (-iou[good] * stability[good] * np.sqrt(area)).argsort(kind="stable")
        if options.min_area <= area[i] <= options.max_area and _border_share(masks[i]) <= options.max_border
    ]
    chosen = _without_overlaps([masks[i] for i in prominent], options.max_overlap, max_objects)
    return _draw_again(sam, features, [mask_box(mask) / np.tile(scale, 2) for mask in chosen])


def _draw_again(sam: Sam, features: FrameFeatures, boxes: list[npt.NDArray[Any]]) -> list[npt.NDArray[np.bool_]]:
    """Masks (H, W) of boxes in original pixels, disjoint (a pixel belongs to whom it was given first), none empty."""
    if not boxes:
        return []
    (answer,) = sam.decode([features], [Prompts(boxes=np.stack(boxes))])
    free = np.ones(features.geometry.original, np.bool_)
    found: list[npt.NDArray[np.bool_]] = []
    for logits in answer.upsampled()[:, 0].cpu().numpy():
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
