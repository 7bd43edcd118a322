"""COCO run-lengths from and to masks, vectorised; the bytes equal those of pycocotools.

A mask is read column by column (y fastest). Its runs alternate background, object, background, ...; the first run is
background and may be empty. Compressed, each count after the third is written as the difference to the count two
before it, in groups of five bits, least significant first, as characters from 48 on; bit 32 says that more follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.limits import HIGHEST_LIMIT
from vidseg.masks.boxes import mask_box
from vidseg.types import Rle

MAX_PIXELS = 1 << 26
"""Largest mask (height times width) accepted from a file, 8192 x 8192: more than any frame that is read unasked."""

_GROUPS = 7  # five-bit groups of the largest count or difference: 33 bits with the sign
_Counts = npt.NDArray[np.int64]


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """Run-lengths of a whole mask (H, W); any dtype, non-zero is object."""
    height, width = mask.shape
    x1, y1, x2, y2 = (int(v) for v in mask_box(mask))
    return encode_window(mask[y1:y2, x1:x2], y1, x1, height, width)


def encode_window(mask_window: npt.NDArray[Any], y0: int, x0: int, height: int, width: int) -> Rle:
    """Run-lengths of a (height, width) mask that is zero outside the window, without building it.

    Args:
        mask_window: (h, w), any dtype; non-zero is object. May be empty.
        y0: row of the window's first row in the mask.
        x0: column of the window's first column in the mask.
        height: rows of the mask.
        width: columns of the mask.

    Raises:
        InputError: the window does not lie inside the mask.
    """
    h, w = mask_window.shape
    if y0 < 0 or x0 < 0 or y0 + h > height or x0 + w > width:
        raise InputError(f"window of {w}x{h} at ({x0}, {y0}) does not lie inside a mask of {width}x{height}")
    if not mask_window.size:
        return empty_rle(height, width)
    padded = np.zeros((h + 1, w), np.uint8)  # below every column a background pixel, where its last run ends
    np.not_equal(mask_window, 0, out=padded[:h].view(np.bool_))
    pixels = cv2.transpose(padded).ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    if pixels[0]:
        edges = np.concatenate([[0], edges])
    edges += edges // (h + 1) * (height - h - 1) + x0 * height + y0  # from the padded window to the mask
    joints = edges[1:-1].reshape(-1, 2)  # a run that goes on at the top of the next column is one run
    apart = joints[:, 0] != joints[:, 1]
    if not apart.all():
        edges = np.concatenate([edges[:1], joints[apart].ravel(), edges[-1:]])
    return _from_edges(edges, height, width)


def empty_rle(height: int, width: int) -> Rle:
    """The mask without any object pixel."""
    return _from_edges(np.zeros(0, np.int64), height, width)


def decode(rle: Rle) -> npt.NDArray[np.bool_]:
    """The whole mask, bool (H, W).

    Raises:
        InputError: the run-lengths are malformed (see :func:`from_coco`).
    """
    counts = _parse(rle)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(rle.width, rle.height).T


def decode_window(rle: Rle) -> tuple[npt.NDArray[np.bool_], int, int]:
    """The mask inside its bounding box, bool (h, w), and the box's row and column; (0, 0) shaped for an empty mask."""
    starts, ends = _runs(rle)
    x1, y1, x2, y2 = _bounds(starts, ends, rle.height)
    if x2 == x1:
        return np.zeros((0, 0), np.bool_), 0, 0
    edges = np.stack([starts, ends], axis=1).ravel() - x1 * rle.height
    counts = np.diff(edges, prepend=0, append=(x2 - x1) * rle.height)
    columns = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(x2 - x1, rle.height)
    return columns[:, y1:y2].T, y1, x1


def area(rle: Rle) -> int:
    """Number of object pixels."""
    return int(_parse(rle)[1::2].sum())


def bbox(rle: Rle) -> npt.NDArray[np.float32]:
    """Tight box, float32 XYXY with exclusive right and bottom; zeros for an empty mask."""
    return np.array(_bounds(*_runs(rle), rle.height), np.float32)


def from_coco(value: object, max_pixels: int = MAX_PIXELS) -> Rle:
    """Validate an RLE from a file: ``{"size": [h, w], "counts": str or list of counts}``.

    Nothing larger than the text itself is allocated; masks of more than ``max_pixels`` pixels are refused.

    Raises:
        InputError: not of this form, too large, malformed characters, negative counts, or a wrong sum.
    """
    if not isinstance(value, Mapping) or "size" not in value or "counts" not in value:
        raise InputError('RLE: expected {"size": [height, width], "counts": ...}')
    size, counts = value["size"], value["counts"]
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in size)
        or size[0] * size[1] > max_pixels
    ):
        raise InputError(f"RLE size {str(size)[:60]}: expected two positive integers with a product up to {max_pixels}")
    height, width = size
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if isinstance(counts, bytes):
        rle = Rle(height, width, counts)
        _parse(rle)
        return rle
    if not isinstance(counts, list) or not all(isinstance(c, int) and 0 <= c <= max_pixels for c in counts):
        raise InputError("RLE counts: expected a string or a list of non-negative integers")
    if sum(counts) != height * width:
        raise InputError(f"RLE counts sum to {sum(counts)}, the mask of {width}x{height} has {height * width} pixels")
    return Rle(height, width, _compress(np.array(counts, np.int64)))


def _runs(rle: Rle) -> tuple[_Counts, _Counts]:
    """Non-empty object runs as flat column-major [start, end) positions."""
    edges = np.cumsum(_parse(rle))
    count = len(edges) // 2
    starts, ends = edges[0 : 2 * count : 2], edges[1 : 2 * count : 2]
    filled = ends > starts
    return starts[filled], ends[filled]


def _bounds(starts: _Counts, ends: _Counts, height: int) -> tuple[int, int, int, int]:
    if not len(starts):
        return 0, 0, 0, 0
    first, last = starts // height, (ends - 1) // height
    if (first != last).any():  # a run over a column's end touches the bottom and the top row
        y1, y2 = 0, height
    else:
        y1, y2 = int((starts % height).min()), int(((ends - 1) % height).max()) + 1
    return int(first[0]), y1, int(last[-1]) + 1, y2


def _from_edges(edges: _Counts, height: int, width: int) -> Rle:
    """Of the flat column-major positions where object runs start and end, in turn."""
    total = height * width
    tail = np.array([] if len(edges) and edges[-1] == total else [total], np.int64)
    return Rle(height, width, _compress(np.diff(edges, prepend=0, append=tail)))


def _compress(counts: _Counts) -> bytes:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    groups, used, alive = [], [], np.ones(len(values), np.bool_)
    while alive.any():
        low = values & 0x1F
        values >>= 5
        more = values != -(low >> 4)  # what is left is not the sign alone
        groups.append((low + 48 + 32 * more).astype(np.uint8))
        used.append(alive)
        alive = alive & more
    return np.stack(groups, 1)[np.stack(used, 1)].tobytes()


def _parse(rle: Rle) -> _Counts:
    """Counts of a compressed RLE, validated: their sum is the number of pixels, none is negative."""
    digits = np.frombuffer(rle.counts, np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise InputError("RLE counts: empty, truncated, or with invalid characters")
    last = np.nonzero(digits & 32 == 0)[0]
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if length.max() > _GROUPS:
        raise InputError("RLE counts: a run longer than any mask")
    place = np.arange(len(digits)) - np.repeat(first, length)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * length), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0 or values.max() > HIGHEST_LIMIT or values.sum() != rle.height * rle.width:
        raise InputError(
            f"RLE counts: negative runs or a sum that is not {rle.height * rle.width}, the pixels of a mask of "
            f"{rle.width}x{rle.height}"
        )
    return values
