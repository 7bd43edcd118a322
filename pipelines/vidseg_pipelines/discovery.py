"""Objects to follow when nobody names any: what a detector sees, or a few large, stable automatic masks of a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vidseg.masks.boxes import box_iou, mask_box
from vidseg.masks.parts import large_parts
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.objectness import click_masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Zoom, draw_closely
from vidseg.types import Prompt, Proposal

Mask: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]


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


def discover_objects(
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
    prompts = PromptBatch(boxes=np.stack(boxes))
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


MAX_OVERLAP = 0.5
"""A proposal is new when known objects cover no more than this share of it."""
SAME_BOX = 0.5
"""A box is that of a known object with the same label from this intersection over union on: it need not be drawn."""


def new_prompts(
    proposals: Sequence[Proposal],
    frame_index: int,
    *,
    first_id: int,
    known: Sequence[tuple[Mask, str | None]] = (),
    max_objects: int,
    draw: Callable[[Box], Mask] | None = None,
) -> list[tuple[Prompt, str | None]]:
    """Prompts and class names, with ids from ``first_id`` on, for the proposals that are not among the ``known``.

    ``known`` are masks and class names. The new masks are disjoint, from each other and from the known ones: a pixel
    belongs to whom it was given first. ``max_objects`` counts the new objects. ``draw`` gives the masks of proposals
    that have a box alone.
    """
    prompts: list[tuple[Prompt, str | None]] = []
    taken = np.any([mask for mask, _ in known], axis=0) if known else None
    boxes = [(mask_box(mask), label) for mask, label in known]
    for proposal in proposals:
        if len(prompts) >= max_objects:
            break
        whole = proposal.mask
        if whole is None:
            assert proposal.box is not None and draw is not None
            box = np.array(proposal.box, np.float32)
            same = [other for other, label in boxes if label is not None and label == proposal.label]
            if same and box_iou(box[None], np.stack(same)).max() >= SAME_BOX:
                continue
            whole = draw(proposal.box)
            boxes.append((box, proposal.label))
        mask = whole if taken is None else whole & ~taken
        if not mask.any() or mask.sum() < (1 - MAX_OVERLAP) * whole.sum():
            continue
        prompts.append((Prompt(frame_index, first_id + len(prompts), mask=mask), proposal.label))
        taken = mask if taken is None else taken | mask
    return prompts
