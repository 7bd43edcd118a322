"""Colours of object ids: the palette of DAVIS for its PNGs, and one to look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Palette = npt.NDArray[np.uint8]

_BRIGHT = ["1e96ff", "ff9614", "e60050", "00ffc8", "7828ff", "a050a0", "c8c878", "a05000", "c800c8", "00c8c8"]
"""Bright, and far apart also for eyes that do not tell red from green or blue from yellow: no two are closer than 18
(CIE 1976), seen with all cones or without one kind."""


def davis_palette() -> Palette:
    """RGB of the indices 0..255, uint8 (256, 3): the palette of DAVIS, which is the one of Pascal VOC.

    Bits 0, 3, 6, ... of the index become the high bits of red; bits 1, 4, ... of green; bits 2, 5, ... of blue.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def color_of(object_id: int) -> tuple[int, int, int]:
    """RGB in which an object is shown, the same in every video; ten colours, then they begin again."""
    red, green, blue = bytes.fromhex(_BRIGHT[(object_id - 1) % len(_BRIGHT)])
    return red, green, blue


def hex_color(object_id: int) -> str:
    """:func:`color_of` as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color_of(object_id))
