"""Objects to follow when nobody names any: what a detector sees, or a few large, stable automatic masks of a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidseg.masks.boxes import box_iou, mask_box
from vidseg.masks.parts import large_parts
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.objectness import click_masks
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Crop, Zoom, draw_closely, zooms
from vidseg.types import Prompt, Proposal

CANVAS = 256
"""Long side of the picture on which candidates of several views are compared."""
AGREE = 0.7
"""Candidates of two views agree from this intersection over union on."""

Mask: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DiscoveryOptions:
    """What counts as an object worth following.

    ``points_per_side``: the grid of clicks on the frame, ``points_per_tile`` that on each of four overlapping tiles,
    whose sides are ``tile`` of the frame's. ``min_area``, ``max_area``: share of the frame; ``min_area_near`` is the
    least of what a tile shows. ``max_overlap``: share of the smaller of two masks that the other may cover.
    ``max_border``: share of the border of the frame or tile that a mask may touch, which tells objects from walls,
    floors and skies.

    With a judge of objects (:mod:`vidseg.sam.objectness`) ``min_objectness`` (0..1) is what it must say at least.
    Without: ``min_stability`` (0..1), stability score (Segment Anything, appendix B); ``min_quality``, predicted
    quality, and ``min_share`` of the best one on the frame: networks differ in what they call good.
    """

    points_per_side: int = 12
    points_per_tile: int = 8
    tile: float = 0.6
    min_objectness: float = 0.1
    min_quality: float = 0.3
    min_share: float = 0.6
    min_stability: float = 0.86
    min_area: float = 0.004
    min_area_near: float = 0.001
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
    tiles: bool = True,
    threads: int | None = None,
    options: DiscoveryOptions | None = None,
) -> list[npt.NDArray[np.bool_]]:
    """Up to ``max_objects`` disjoint masks (H, W) of a frame, the most prominent first.

    A grid of clicks gives candidates. With the ``image`` (H, W, 3) at hand and ``tiles`` (which need a judge of
    objects, and a ``zoom`` that is not "never") four parts of the frame are looked at in the same way, for what is
    small; that takes three times as long. The good ones that do not overlap are drawn again from their boxes, which
    says better than a click what is meant: with the image also closely, see :mod:`vidseg.sam.zoom`. Where none is
    good the most promising is taken; no object is an answer only where nothing has the size of one. On a CPU as many
    views are looked at at once as there are ``threads``, by default those of torch.
    """
    options = options or DiscoveryOptions()
    height, width = frame = features.geometry.original
    views, seen = [Crop(0, 0, width, height)], [features]
    canvas = features.geometry.low_res_frame
    if tiles and image is not None and sam.objectness is not None and zooms(sam.config, zoom):
        near = _tiles(frame, options.tile)
        views += near
        seen += [sam.encode([tile.of(image)])[0] for tile in near]
        canvas = max(1, round(height * CANVAS / max(frame))), max(1, round(width * CANVAS / max(frame)))

    def look(view: Crop, looked: FrameFeatures) -> list[_Candidate]:
        return _look(sam, looked, view, frame, canvas, options)

    threads = threads or torch.get_num_threads()
    at_once = min(len(views), threads)
    if at_once > 1 and sam.device.type == "cpu":
        own = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(at_once, "vidseg-find", torch.set_num_threads, (threads // at_once,)) as pool:
                looks = list(pool.map(look, views, seen))
        finally:
            torch.set_num_threads(own)  # the threads of the pool have set the number for all that begin later
    else:
        looks = list(map(look, views, seen))
    chosen = _choose([one for found in looks for one in found], options.max_overlap, max_objects)
    scale = np.array(canvas[::-1]) / np.array((width, height))
    return _draw_again(sam, features, [mask_box(one.mask) / np.tile(scale, 2) for one in chosen], image, zoom)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A mask on the canvas, a small picture of the frame."""

    mask: Mask
    rank: float
    good: bool
    fit: bool
    """Neither too small nor too large, nor cut off by the view in which it was seen."""
    view: Crop


def _tiles(frame: tuple[int, int], share: float) -> list[Crop]:
    """Four crops, one in every corner of a frame of (height, width), with ``share`` of its sides."""
    height, width = frame
    high, wide = max(1, int(share * height)), max(1, int(share * width))
    return [Crop(x, y, x + wide, y + high) for y in (0, height - high) for x in (0, width - wide)]


def _look(
    sam: SegmentAnything,
    features: FrameFeatures,
    view: Crop,
    frame: tuple[int, int],
    canvas: tuple[int, int],
    options: DiscoveryOptions,
) -> list[_Candidate]:
    """The candidates of a view of the frame that are good or fit."""
    whole = view.size == frame
    masks, iou, stability = click_masks(sam, features, options.points_per_side if whole else options.points_per_tile)
    if not len(masks):
        return []
    if sam.objectness is not None:
        rank = sam.objectness.judge(features.embedding, masks, iou, stability).sigmoid().cpu()
        good = rank >= options.min_objectness
    else:
        area = (masks > 0).float().mean((1, 2))
        rank = iou * stability * area.sqrt()
        good = (iou >= max(options.min_quality, options.min_share * float(iou.max()))) & (
            stability >= options.min_stability
        )
    least = options.min_area if whole else options.min_area_near * frame[0] * frame[1] / (view.size[0] * view.size[1])
    candidates = []
    for mask, value, is_good in zip(masks.numpy() > 0, rank.tolist(), good.tolist(), strict=True):
        fit = least <= mask.mean() <= options.max_area and _border_share(mask) <= options.max_border
        fit = fit and not view.cuts(mask, frame)
        if is_good or fit:
            candidates.append(_Candidate(_on_canvas(mask, view, frame, canvas), value, is_good, fit, view))
    return candidates


def _on_canvas(mask: Mask, view: Crop, frame: tuple[int, int], canvas: tuple[int, int]) -> Mask:
    """A mask of a view on a canvas for the whole frame."""
    y, x = canvas[0] / frame[0], canvas[1] / frame[1]
    y1, y2, x1, x2 = round(view.y1 * y), round(view.y2 * y), round(view.x1 * x), round(view.x2 * x)
    placed = np.zeros(canvas, np.bool_)
    placed[y1:y2, x1:x2] = cv2.resize(mask.astype(np.uint8), (x2 - x1, y2 - y1)) > 0
    return placed


def _choose(found: Sequence[_Candidate], max_overlap: float, count: int) -> list[_Candidate]:
    """The first ``count`` candidates that do not overlap with an earlier one, the best first.

    What looks like an object in several views counts more than what does in one: to the rank of a candidate is added
    that of the best one of another view which agrees with it.
    """
    visible = [one for one in found if one.mask.any()]
    visible.sort(key=lambda one: -one.rank)
    counted = [one for one in visible if one.good]
    if not any(one.fit for one in counted):
        return [one for one in visible if one.fit][:1]
    flat = np.stack([one.mask.ravel() for one in counted]).astype(np.float32)
    both = flat @ flat.T
    area = both.diagonal()
    agree = both >= AGREE * (area[:, None] + area - both)  # intersection and union
    views, rank = np.array([one.view for one in counted]), np.array([one.rank for one in counted])
    elsewhere = (views[:, None] != views).any(2)
    rank += np.where(agree & elsewhere, rank, 0).max(1)
    chosen: list[int] = []
    for i in (-rank).argsort(kind="stable").tolist():
        if len(chosen) == count:
            break
        if counted[i].fit and all(both[i, j] <= max_overlap * min(area[i], area[j]) for j in chosen):
            chosen.append(i)
    return [counted[i] for i in chosen]


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
