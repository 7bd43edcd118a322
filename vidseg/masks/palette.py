"""Colours of object ids: the palette of DAVIS, which is the one of Pascal VOC."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Palette = npt.NDArray[np.uint8]


def davis_palette() -> Palette:
    """RGB of the indices 0..255, uint8 (256, 3).

    Bits 0, 3, 6, ... of the index become the high bits of red; bits 1, 4, ... of green; bits 2, 5, ... of blue.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def color_of(object_id: int) -> tuple[int, int, int]:
    """RGB of an object id, the same in every video: the DAVIS colour of (id - 1) modulo 255, plus one."""
    red, green, blue = davis_palette()[(object_id - 1) % 255 + 1]
    return int(red), int(green), int(blue)
