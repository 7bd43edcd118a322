"""Display orientation: the 3x3 matrix of MP4/MOV (ISO/IEC 14496-12, 6.2.2) as quarter turns and mirrors of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidseg.types import Array


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay an image on the pixel grid: transpose first, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, rgb: Array) -> Array:
        """Coded pixels (H, W, 3) or (H, W) to displayed pixels, contiguous."""
        if self == Orientation():
            return rgb
        if self.transpose:
            rgb = rgb.swapaxes(0, 1)
        if self.flip_x:
            rgb = rgb[:, ::-1]
        if self.flip_y:
            rgb = rgb[::-1]
        return np.ascontiguousarray(rgb)

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of an image that is stored as ``stored``."""
        return stored[::-1] if self.transpose else stored

    @property
    def degrees(self) -> int:
        """Clockwise turn that shows the coded image upright (mirrors not counted): 0, 90, 180 or 270."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_x and self.flip_y else 0

    @property
    def mirrored(self) -> bool:
        """Whether a mirror is needed besides the turn."""
        return self.transpose != (self.flip_x != self.flip_y)
