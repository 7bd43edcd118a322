"""How large an image may be before memory is taken for it."""

from __future__ import annotations

from pathlib import Path

from vidseg.errors import InputError

PIXEL_LIMIT = 8192 * 4352
"""Default limit of pixels per frame: a little more than 8K (7680x4320 and the 8192-wide cinema format)."""

HIGHEST_LIMIT = 16384 * 16384
"""What ``--max-pixels`` may raise it to: the largest image of H.264, and the largest mask that a journal may hold."""


def check_pixels(name: str | Path, size: tuple[int, int], limit: int = PIXEL_LIMIT, *, option: bool = False) -> None:
    """Refuse an image of ``size`` (width, height) with more than ``limit`` pixels.

    ``option``: ``--max-pixels`` raises this limit; the message says so.

    Raises:
        InputError: it is too large.
    """
    pixels = size[0] * size[1]
    if pixels <= limit:
        return
    way_out = f"; --max-pixels {pixels} reads it, if you trust where it comes from" if option else ""
    if pixels > HIGHEST_LIMIT:
        way_out = "; make it smaller first" if option else ""
    raise InputError(f"{name}: {size[0]}x{size[1]} is larger than the limit of {limit} pixels{way_out}")
