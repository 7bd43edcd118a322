"""Binary masks kept as the window they occupy: what makes the pixel counts of the metrics cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.types import ShapeRepr

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, repr=False)
class Patch(ShapeRepr):
    """A mask of 0 and 1 whose pixel (0, 0) stands at (``top``, ``left``) of the frame; background everywhere else."""

    top: int
    left: int
    bits: Bits
    area: int

    def common(self, other: Patch) -> int:
        """Number of pixels set in both."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.bits.shape[0], other.top + other.bits.shape[0])
        right = min(self.left + self.bits.shape[1], other.left + other.bits.shape[1])
        if bottom <= top or right <= left or not self.area or not other.area:
            return 0
        mine = self.bits[top - self.top : bottom - self.top, left - self.left : right - self.left]
        theirs = other.bits[top - other.top : bottom - other.top, left - other.left : right - other.left]
        return int(np.count_nonzero(mine & theirs))


EMPTY = Patch(0, 0, np.zeros((0, 0), np.uint8), 0)


def patch_of(bits: Bits, top: int = 0, left: int = 0) -> Patch:
    """``bits`` (h, w) of 0 and 1, not cropped further, with its pixels counted."""
    return Patch(top, left, bits, int(np.count_nonzero(bits)))


def as_bits(mask: npt.NDArray[Any]) -> Bits:
    """``mask`` (H, W) as uint8 of 0 and 1, contiguous; bool masks are not copied."""
    return np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0).view(np.uint8)


def cut_out(mask: npt.NDArray[Any], margin: int = 0) -> Patch:
    """A copy of the tight window of ``mask`` (H, W), widened by ``margin`` pixels on each side within the frame."""
    bits = as_bits(mask)
    left, top, width, height = cv2.boundingRect(bits)
    if not width:
        return EMPTY
    y, x = max(0, top - margin), max(0, left - margin)
    return patch_of(bits[y : top + height + margin, x : left + width + margin].copy(), y, x)
