"""Boxes: float32 XYXY in pixels, right and bottom exclusive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]


def mask_box(mask: npt.NDArray[Any]) -> Boxes:
    """Tight box of a mask (H, W), shape (4,); zeros for an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return np.zeros(4, np.float32)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def box_iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4), shape (N, M); 0 where both boxes are empty."""
    a64, b64 = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.clip(np.minimum(a64[..., 2:], b64[..., 2:]) - np.maximum(a64[..., :2], b64[..., :2]), 0, None)
    intersection = sides.prod(axis=-1)
    union = _areas(a64) + _areas(b64) - intersection
    iou: npt.NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return iou


def clip_boxes(boxes: Boxes, width: int, height: int) -> Boxes:
    """Boxes (N, 4) cut to the frame."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, 0, limits).astype(np.float32)


def suppress_boxes(boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], threshold: float) -> list[int]:
    """Non-maximum suppression: indices that stay, by falling score (ties in the given order).

    A box goes when its IoU with a kept one is above ``threshold``.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(boxes), np.bool_)
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        sides = np.minimum(boxes[i, 2:], boxes[rest, 2:]) - np.maximum(boxes[i, :2], boxes[rest, :2])
        inter = np.clip(sides, 0, None).prod(axis=1)
        alive[rest] &= inter <= threshold * (areas[i] + areas[rest] - inter)
    return [int(i) for i in order[alive]]


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    areas: npt.NDArray[np.float64] = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(axis=-1)
    return areas
