"""Label maps on disk: PNG files whose pixel value is the object id, read one by one or as pairs of truth and guess."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vidseg.errors import InputError
from vidseg.evaluation.png import plain_pixels
from vidseg.limits import PIXEL_LIMIT, check_pixels

LabelMap = npt.NDArray[np.unsignedinteger[Any]]
_DEEP = ("I;16", "I")  # how Pillow calls 16-bit grey


@dataclass(frozen=True, slots=True)
class FramePair:
    """The label maps of one frame, both cut to the window that holds all their objects and one pixel of background.

    ``truth``, ``guess``: uint8 or uint16 (h, w), ids; the window's pixel (0, 0) stands at (``top``, ``left``) of a
    frame of ``height`` x ``width`` pixels. Where the frame ends there is no pixel of background.
    """

    truth: LabelMap
    guess: LabelMap
    top: int
    left: int
    height: int
    width: int


def read_label_map(path: Path) -> LabelMap:
    """Read a palette or grey PNG as object ids (H, W), uint8, or uint16 of 16-bit grey; palettes are kept as indices.

    Raises:
        InputError: the file is missing, damaged, or has colours instead of ids.
    """
    try:
        size = path.stat().st_size
        if size > PIXEL_LIMIT:  # before it is read: no label map needs so much
            raise InputError(f"{path}: a file of {size:,} bytes is not a label map; the limit is {PIXEL_LIMIT:,}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error.strerror})") from None
    plain = plain_pixels(data, PIXEL_LIMIT)
    return plain if plain is not None else _decode(path, data)


def read_pair(truth: Path, guess: Path) -> FramePair:
    """Read the label maps of one frame.

    Raises:
        InputError: as :func:`read_label_map`, or the two do not have the same size.
    """
    maps = read_label_map(truth), read_label_map(guess)
    height, width = maps[0].shape
    if maps[1].shape != maps[0].shape:
        raise InputError(
            f"{guess}: {maps[1].shape[1]}x{maps[1].shape[0]} pixels, but its ground truth has {width}x{height}: "
            "save masks at the original size"
        )
    boxes = [(x, y, x + w, y + h) for x, y, w, h in map(_bounds, maps) if w]
    if not boxes:
        nothing = np.zeros((0, 0), np.uint8)
        return FramePair(nothing, nothing, 0, 0, height, width)
    left, top, right, bottom = (
        max(0, min(box[0] for box in boxes) - 1),
        max(0, min(box[1] for box in boxes) - 1),
        min(width, max(box[2] for box in boxes) + 1),
        min(height, max(box[3] for box in boxes) + 1),
    )
    gt, pred = (np.ascontiguousarray(labels[top:bottom, left:right]) for labels in maps)
    return FramePair(gt, pred, top, left, height, width)


def _bounds(labels: LabelMap) -> Sequence[int]:
    """Left, top, width and height of everything but background."""
    return cv2.boundingRect(labels if labels.dtype == np.uint8 else (labels != 0).view(np.uint8))


def _decode(path: Path, data: bytes) -> LabelMap:
    """What Pillow makes of a file that is not plain."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.size, PIXEL_LIMIT)
            image.load()
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image{'' if data else ' (an empty file)'}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable image ({error})") from None
    if image.mode not in ("P", "L", "1", *_DEEP):
        raise InputError(
            f"{path}: colour mode {image.mode}: a label map must be a palette (P), 8-bit (L) or 16-bit grey PNG whose "
            "pixel value is the object id"
        )
    return np.asarray(image).astype(np.uint16 if image.mode in _DEEP else np.uint8, copy=False)
