"""The boundary band of a mask: what boundary IoU compares (Cheng et al., "Boundary IoU", CVPR 2021, section 4)."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError


def band_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Width in pixels of the band for a frame of ``height`` x ``width`` pixels.

    ``ratio`` (0 < ratio <= 1) times the frame's diagonal, rounded half to even and at least 1. Half-pixel ties are
    common (0.02 of 375x500 is 12.5), so the rounding rule is part of the metric.

    Raises:
        UsageError: the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise UsageError(f"boundary ratio {ratio:g}: expected a share of the frame's diagonal above 0 and at most 1")
    return max(1, round(ratio * math.sqrt(height**2 + width**2)))


def boundary_band(mask: npt.NDArray[Any], width: int) -> npt.NDArray[np.uint8]:
    """The pixels of ``mask`` (h, w) at Chebyshev distance <= ``width`` from the background, uint8 (h, w) of 0 and 1.

    Everything outside the array is background, so a mask cut by the frame has a band along the frame, and a crop that
    holds the whole mask gives the same band as the full frame.
    """
    solid = np.ascontiguousarray(mask != 0).view(np.uint8)
    side = 2 * width + 1
    if min(solid.shape) < side:  # no square of this side fits: everything is band
        return solid
    inner = cv2.erode(solid, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0.0,))
    return solid - np.asarray(inner, np.uint8)
