"""Region similarity J and contour accuracy F of DAVIS (Perazzi et al., CVPR 2016, section 5), on small windows.

Not to be mixed with boundary IoU: here contours are one pixel thick and the tolerance is a disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.evaluation.patches import EMPTY, Bits, Patch, as_bits, cut_out, patch_of

TOLERANCE = 0.008
"""Radius of the tolerance disk as a share of the frame's diagonal (values of 1 and more are pixels)."""


def contour_radius(height: int, width: int, tolerance: float = TOLERANCE) -> int:
    """Radius in pixels of the tolerance disk for a frame of ``height`` x ``width`` pixels: 8 for 480 x 854."""
    if tolerance >= 1:
        return math.ceil(tolerance)
    return math.ceil(tolerance * float(np.linalg.norm((height, width))))


def contour_map(mask: npt.NDArray[Any]) -> Bits:
    """One-pixel contour of ``mask`` (H, W): 1 where a pixel differs from its right, lower or lower-right neighbour.

    The last row is compared with the right neighbour only, the last column with the lower one only, and the last pixel
    never is a contour; so an object cut by the frame has no contour along the frame.
    """
    bits = as_bits(mask)
    contour = np.zeros_like(bits)
    contour[:, :-1] = bits[:, :-1] ^ bits[:, 1:]
    contour[:-1] |= bits[:-1] ^ bits[1:]
    contour[:-1, :-1] |= bits[:-1, :-1] ^ bits[1:, 1:]
    return contour


def _dilate(bits: Bits, radius: int) -> Bits:
    """``bits`` widened by the disk x^2 + y^2 <= radius^2, row by row of the disk: it takes less time than the disk."""
    height = len(bits)
    near, run, reach = np.zeros_like(bits), bits, 0
    for dy in range(radius, -1, -1):
        half = math.isqrt(radius**2 - dy**2)
        if half > reach:
            run = np.asarray(cv2.dilate(run, np.ones((1, 2 * (half - reach) + 1), np.uint8)), np.uint8)
            reach = half
        near[dy:] |= run[: height - dy]
        near[: height - dy] |= run[dy:]
    return near


@dataclass(frozen=True, slots=True)
class Outline:
    """One object on one frame, ready to be compared: its mask, its contour, and all pixels within the tolerance."""

    mask: Patch
    contour: Patch
    reach: Patch


ABSENT = Outline(EMPTY, EMPTY, EMPTY)


def outline(mask: npt.NDArray[Any], radius: int, top: int = 0, left: int = 0) -> Outline:
    """Prepare ``mask`` (h, w), a window at (``top``, ``left``) of the frame, for :func:`compare`.

    A window that is smaller than the frame must leave one pixel of background where the frame goes on.
    """
    if not mask.size:
        return ABSENT
    window = cut_out(mask, margin=1)
    if not window.area:
        return ABSENT
    y, x = window.top + top, window.left + left
    contour = patch_of(contour_map(window.bits.view(np.bool_)), y, x)
    padded = cv2.copyMakeBorder(contour.bits, radius, radius, radius, radius, cv2.BORDER_CONSTANT, value=(0.0,))
    reach = Patch(y - radius, x - radius, _dilate(np.asarray(padded, np.uint8), radius), contour.area)
    return Outline(Patch(y, x, window.bits, window.area), contour, reach)


def outlines(labels: npt.NDArray[Any], ids: Iterable[int], radius: int, top: int, left: int) -> list[Outline]:
    """The outlines of the objects ``ids`` of a label map (h, w), a window as in :func:`outline`."""
    mask = np.empty(labels.shape, bool)  # one for all: fresh memory costs more than the comparison
    found = []
    for k in ids:
        np.equal(labels, k, out=mask)
        found.append(outline(mask, radius, top, left))
    return found


def compare(truth: Outline, guess: Outline) -> tuple[float, float]:
    """(J, F) of one object on one frame, both in 0..1.

    J is 1 when both masks are empty. F is 1 when both CONTOURS are empty (a mask that fills the frame has none) and 0
    when exactly one is.
    """
    common = truth.mask.common(guess.mask)
    union = truth.mask.area + guess.mask.area - common
    j = common / union if union else 1.0
    if not truth.contour.area or not guess.contour.area:
        return j, float(truth.contour.area == guess.contour.area)
    precision = guess.contour.common(truth.reach) / guess.contour.area
    recall = truth.contour.common(guess.reach) / truth.contour.area
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def region_and_contour(
    truth: npt.NDArray[Any], guess: npt.NDArray[Any], tolerance: float = TOLERANCE
) -> tuple[float, float]:
    """(J, F) of two masks (H, W) of the same shape; ``tolerance`` as in :func:`contour_radius`."""
    radius = contour_radius(truth.shape[0], truth.shape[1], tolerance)
    return compare(outline(truth, radius), outline(guess, radius))
