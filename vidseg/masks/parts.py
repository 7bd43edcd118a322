"""Connected parts of masks; pixels that touch by a corner are connected."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def parts_at(mask: Mask, points: Iterable[tuple[float, float]]) -> Mask:
    """The parts of a mask (H, W) that lie under the points (x, y); empty when there is none."""
    height, width = mask.shape
    closed = np.ones((height + 2, width + 2), np.uint8)  # 0: to be filled, 1: a wall, 2: filled
    inside = closed[1:-1, 1:-1]
    inside[:] = ~mask
    even = np.zeros((height, width), np.uint8)
    for x, y in points:
        if inside[int(y), int(x)] == 0:
            cv2.floodFill(even, closed, (int(x), int(y)), 0, flags=8 | cv2.FLOODFILL_MASK_ONLY | (2 << 8))
    return np.asarray(inside == 2)


def large_parts(mask: Mask, share: float = 0.1) -> Mask:
    """The mask without parts that are smaller than ``share`` of its largest part."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    return np.asarray((areas >= share * areas.max())[labels] & mask)


def without_small_parts(mask: Mask, min_area: int, *, holes: bool) -> tuple[Mask, bool]:
    """The mask with holes filled (or islands dropped) of fewer than ``min_area`` pixels, and whether there were any.

    When all islands are small, the largest stays.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask != holes).astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]
    small = np.flatnonzero(sizes < min_area) + 1
    if not len(small):
        return mask, False
    if holes:
        return mask | np.isin(labels, small), True
    large = np.setdiff1d(np.arange(1, count), small)
    return np.isin(labels, large if len(large) else [int(sizes.argmax()) + 1]), True
