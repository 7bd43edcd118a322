"""Masks as polygons: parts with their holes, each one closed line that reaches its holes over bridges of no width."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.masks.rle import decode_window
from vidseg.types import Array, Rle

Line = npt.NDArray[np.float64]
"""Corners of a closed line, (n, 2) as x, y; integers are centres of pixels."""

_TOLERANCE = 0.5  # pixels by which a corner may be left out
_TOLERANCE_HALVES = 0.75  # half pixels; from 1 on, rows of single pixels would be lines


def polygons(rle: Rle) -> list[Line]:
    """One line per part of a mask, largest part first; filled and drawn, they give the mask.

    Holes are kept: the line goes to a hole, around it against its own direction, and back the same way. A part with
    fewer than three corners (a pixel, a row of pixels) is drawn there and back.
    """
    window, y0, x0 = decode_window(rle)
    return _lines(window, _TOLERANCE, (x0, y0))


def one_polygon(rle: Rle) -> Line:
    """All parts of a mask as a single line, joined by bridges of no width; (0, 2) for an empty mask."""
    return _joined(polygons(rle))


def outline(rle: Rle) -> Line:
    """The same as a shape along the edges of the pixels: x = 0 is the left edge of the first one, 0.5 its centre.

    For programs that fill what is inside of the line, as pycocotools does, and do not draw the line itself.
    """
    window, y0, x0 = decode_window(rle)
    halves = window.repeat(2, 0).repeat(2, 1)  # centres of half pixels: a quarter of a pixel inside of the edge
    return (_joined(_lines(halves, _TOLERANCE_HALVES, (2 * x0, 2 * y0))) + 0.5) / 2


def _lines(window: npt.NDArray[np.bool_], tolerance: float, offset: tuple[int, int]) -> list[Line]:
    if not window.size:
        return []
    found, tree = cv2.findContours(window.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    lines: list[tuple[float, Line]] = []
    for k, (contour, (_, _, first_hole, parent)) in enumerate(zip(found, tree[0], strict=True)):
        if parent >= 0:
            continue
        line, hole = _simple(contour, tolerance), first_hole
        holes = []
        while hole >= 0:
            holes.append(_simple(found[hole], tolerance))
            hole = tree[0][hole][0]
        for inner in sorted(holes, key=lambda inner: float(inner[:, 0].min())):
            line = _bridged(line, inner)
        lines.append((-cv2.contourArea(found[k]), line if len(line) >= 3 else np.resize(line, (3, 2))))
    return [line for _, line in sorted(lines, key=lambda entry: entry[0])]


def _joined(parts: list[Line]) -> Line:
    if not parts:
        return np.zeros((0, 2))
    line = parts[0]
    for part in parts[1:]:
        line = _bridged(line, part)
    return line


def _simple(contour: Array, tolerance: float) -> Line:
    corners = cv2.approxPolyDP(np.asarray(contour, np.int32), tolerance, True)[:, 0]
    return np.asarray(corners, np.float64)


def _bridged(line: Line, other: Line) -> Line:
    """``line`` with ``other`` inserted where the two are closest."""
    distances = ((line[:, None] - other[None]) ** 2).sum(2)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    around = np.concatenate([other[there:], other[: there + 1]])
    return np.concatenate([line[: here + 1], around, line[here:]])
