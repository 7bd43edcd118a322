"""Connected parts of masks; pixels that touch by a corner are connected."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def parts_at(mask: Mask, points: Iterable[tuple[float, float]]) -> Mask:
    """The parts of a mask (H, W) that lie under the points (x, y); empty when there is none."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    hit = {int(labels[int(y), int(x)]) for x, y in points} - {0}
    return np.isin(labels, list(hit))


def large_parts(mask: Mask, share: float = 0.1) -> Mask:
    """The mask without parts that are smaller than ``share`` of its largest part."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    return np.asarray((areas >= share * areas.max())[labels] & mask)
