"""Objects to follow when nobody names any: a few large, stable, non-overlapping automatic masks of one frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidseg.masks.paste import upsample_logits
from vidseg.sam.model import FrameFeatures, Sam, stability_score
from vidseg.sam.prompts import Prompts


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """What counts as an object worth following.

    ``points_per_side``: the grid of clicks. ``min_iou``, ``min_stability`` (0..1): predicted quality and stability
    score (Segment Anything, appendix B). ``min_area``, ``max_area``: share of the frame. ``max_overlap``: share of the
    smaller of two masks that the other may cover. ``max_border``: share of the frame's border that it may touch, which
    tells objects from walls, floors and skies.
    """

    points_per_side: int = 16
    min_iou: float = 0.75
    min_stability: float = 0.85
    min_area: float = 0.004
    max_area: float = 0.5
    max_overlap: float = 0.2
    max_border: float = 0.3


def find_objects(
    sam: Sam, features: FrameFeatures, *, max_objects: int, options: DiscoveryOptions | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Up to ``max_objects`` disjoint masks (H, W) of a frame, the most prominent first; none is a possible answer."""
    options = options or DiscoveryOptions()
    logits, iou = _candidates(sam, features, options.points_per_side)
    masks = logits > 0
    stability = stability_score(logits)
    area = masks.flatten(1).float().mean(1)
    good = (
        (iou >= options.min_iou)
        & (stability >= options.min_stability)
        & (area >= options.min_area)
        & (area <= options.max_area)
        & (_border_share(masks) <= options.max_border)
    )
    # Large masks first, but a doubtful large one does not beat a sure smaller one.
    prominence = iou * stability * area.sqrt()
    order = prominence[good].argsort(descending=True, stable=True)
    chosen = _without_overlaps(masks[good][order], options.max_overlap, max_objects)
    picked = logits[good][order][chosen]
    g = features.geometry
    # The logits were cropped to the image, so one step to the original remains.
    size = (picked.shape[1], picked.shape[2])
    full = upsample_logits(picked, size, size, g.original) if len(picked) else picked
    free = torch.ones(g.original, dtype=torch.bool, device=full.device)
    found: list[npt.NDArray[np.bool_]] = []
    for one in full:
        mask = (one > 0) & free
        free &= ~mask
        if mask.any():
            found.append(_without_specks(mask.cpu().numpy()))
    return found


def _without_specks(mask: npt.NDArray[np.bool_], share: float = 0.1) -> npt.NDArray[np.bool_]:
    """The mask (H, W) without connected parts that are smaller than ``share`` of its largest part."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    return (areas >= share * areas.max())[labels] & mask


def _candidates(sam: Sam, features: FrameFeatures, points_per_side: int) -> tuple[Tensor, Tensor]:
    """All three candidates of every click on a grid: logits (K, h, w) without the padding, predicted quality (K,)."""
    g = features.geometry
    height, width = g.original
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    points = np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 1, 2)
    prompts = Prompts(points=points, labels=np.ones(points.shape[:2], np.int64))
    (answer,) = sam.decode([features], [prompts], candidates="all")
    rows = max(1, round(g.resized[0] * g.low_res[0] / g.padded[0]))
    columns = max(1, round(g.resized[1] * g.low_res[1] / g.padded[1]))
    return answer.logits.flatten(0, 1)[:, :rows, :columns], answer.iou.flatten()


def _border_share(masks: Tensor) -> Tensor:
    """Share of the frame's outermost pixels that belong to each mask (K, h, w)."""
    edge = torch.cat([masks[:, 0], masks[:, -1], masks[:, 1:-1, 0], masks[:, 1:-1, -1]], dim=1)
    return edge.float().mean(1)


def _without_overlaps(masks: Tensor, max_overlap: float, count: int) -> list[int]:
    """Indices of the first ``count`` masks that do not overlap with an earlier one."""
    flat = masks.flatten(1).float()
    area = flat.sum(1)
    chosen: list[int] = []
    for i in range(len(flat)):
        if len(chosen) == count:
            break
        inter = flat[chosen] @ flat[i]
        if not (inter > max_overlap * torch.minimum(area[chosen], area[i])).any():
            chosen.append(i)
    return chosen
