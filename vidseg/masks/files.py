"""Files of masks as people have them: what their values mean is decided here, once for everything that reads one.

* A palette is never in doubt: index 0 is background, index 255 beside others is void, every other index is an object.
* One value beside 0, whatever it is (1, 38, 128, 255, 65535, a colour), is a mask of one object.
* Several values or colours that cover whole areas are objects or classes; 255 beside small numbers is void.
* Other grey levels are a soft edge: foreground is above 128, or above half of the brightest level where that is a
  whole area at 128 or less (the soft-edged mask of a dark grey class). Void and transparent pixels are background.

Training takes :meth:`MaskFile.grey`, evaluation of one mask per image :meth:`MaskFile.foreground`; who needs every
object (``vidseg run --mask``) takes ``values`` where ``kind`` is "labels", object 1 where it is "binary", and has no
objects to take where it is "soft" or "empty".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT, check_pixels
from vidseg.types import ShapeRepr

FOREGROUND = 128
"""Grey values above this one are foreground."""

FORMATS = ("PNG", "TIFF", "BMP", "DIB", "GIF", "JPEG", "WEBP", "PPM")
"""Formats of mask files, in Pillow's words; others may start programs."""

VOID = 255
"""Index that belongs to no object, as in DAVIS and Pascal VOC."""

_MAX_ID_BESIDE_VOID = 64
_MIN_PIECE = 6
"""Mean pixels of a value's connected parts from which it is an area; rims of soft edges break into parts of 1 or 2."""
_SHARE_OF_AREAS = 0.75
_MIN_SLOPE, _SHARE_OF_SLOPE = 16, 0.9
"""More values than these, next to each other in their order nearly everywhere, are a slope however wide its steps."""

_Values = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class MaskFile(ShapeRepr):
    """``values`` (H, W): object ids or classes ("labels"; a colour is 65536 R + 256 G + B), 0 and one other value
    ("binary"), grey levels 0..255 ("soft"), or nothing but 0 ("empty")."""

    path: Path
    values: _Values
    kind: Literal["empty", "binary", "labels", "soft"]

    def grey(self) -> npt.NDArray[np.uint8]:
        """Everything that is an object as one mask, uint8 (H, W): above 128 is foreground; only soft edges are grey."""
        if self.kind == "soft":
            return self.values.astype(np.uint8, copy=False)
        return np.where(self.values > 0, np.uint8(255), np.uint8(0))

    def foreground(self) -> npt.NDArray[np.bool_]:
        """Everything that is an object as one mask, bool (H, W)."""
        return self.values > (FOREGROUND if self.kind == "soft" else 0)


def read_mask_values(path: Path, pixel_limit: int = PIXEL_LIMIT) -> MaskFile:
    """Read a mask file of one of :data:`FORMATS`, turned as its EXIF orientation says.

    Raises:
        InputError: missing, damaged, too large, several images in one file, or floating-point values.
    """
    pixels, palette = _read(path, pixel_limit)
    if palette is not None:
        return _from_indices(path, pixels, palette)
    pixels, alpha = _visible(pixels)
    brightness = pixels.max(axis=2)
    grey = bool(pixels.shape[2] == 1 or (pixels.min(axis=2) == brightness).all())
    values = brightness if grey else pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    present = _present(values)
    objects = present[present > 0]
    if len(objects) < 2:
        return MaskFile(path, values, "binary" if len(objects) else "empty")
    if _areas(values, present).mean() >= _SHARE_OF_AREAS and not (grey and _is_black_to_white(present)):
        if grey and objects[-1] == VOID and objects[-2] < _MAX_ID_BESIDE_VOID:
            values = np.where(values == VOID, values.dtype.type(0), values)
        return MaskFile(path, values, "labels")
    if alpha is not None:  # the cut-out of an image
        return MaskFile(path, alpha, "soft")
    return MaskFile(path, _soft(brightness), "soft")


def _read(path: Path, pixel_limit: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """Pixels (H, W) or (H, W, C), and the colours (N, 3) of the indices of a palette file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            check_pixels(path, image.size, pixel_limit)
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{path}: {image.n_frames} images in one file; a mask is one image")  # type: ignore[attr-defined]
            turned = ImageOps.exif_transpose(image)
            mode = turned.mode
            if mode == "P":
                return np.asarray(turned), np.array(turned.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
            if mode in ("PA", "CMYK", "YCbCr", "LAB", "HSV"):
                turned = turned.convert("RGBA" if mode == "PA" else "RGB")
            pixels = np.asarray(turned)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable image") from error
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8), None
    if pixels.dtype.kind not in "ui" or (pixels.dtype.kind == "i" and int(pixels.min()) < 0):
        raise InputError(f"{path}: {mode} pixels; a mask has whole numbers from 0 on")
    return pixels, None


def _visible(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """Grey or colours (H, W, 1 or 3), black where they are transparent, and the alpha channel if it says anything."""
    if pixels.ndim == 2 or pixels.shape[2] in (1, 3):
        return np.atleast_3d(pixels), None
    alpha, colours = pixels[..., -1], pixels[..., :-1]
    if alpha.min() == alpha.max():
        return colours, None
    colours = np.where(alpha[..., None] > 0, colours, 0)
    return (colours, alpha) if colours.any() else (alpha[..., None], None)  # else a black shape on nothing


def _is_black_to_white(present: _Values) -> bool:
    """Whether the values are those of a trimap, or of a mask whose black and white are not quite 0 and 255."""
    if present.tolist() in ([0, 127, VOID], [0, 128, VOID]):
        return True
    return len(present) == 2 and present[0] <= FOREGROUND < present[1] <= VOID


def _from_indices(path: Path, index: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> MaskFile:
    present = _present(index)
    colours = [palette[i].tolist() if i < len(palette) else None for i in present]
    if len(present) == 2 and [255, 255, 255] in colours and [0, 0, 0] in colours:  # black and white in any order
        return MaskFile(path, (index == present[colours.index([255, 255, 255])]).astype(np.uint8), "binary")
    objects = present[present > 0]
    if objects.tolist() == [VOID]:
        return MaskFile(path, index, "binary")
    values = np.where(index == VOID, np.uint8(0), index)
    return MaskFile(path, values, "labels" if len(objects) else "empty")


def _present(values: _Values) -> _Values:
    """The different values, ascending."""
    if values.dtype in (np.uint8, np.uint16):
        return np.flatnonzero(np.bincount(values.ravel())).astype(values.dtype)
    return np.unique(values)


def _areas(values: _Values, present: _Values) -> npt.NDArray[np.bool_]:
    """For every value above 0 in ``present`` whether it is an area or a line of its own, not the rim of another.

    Its connected parts are large, or it does not lie between a lower and a higher value. The parts of all values are
    counted at once by their Euler characteristic: pixels - pairs + blocks of four.
    """
    n = len(present)
    if n > 65535 or n * 4 > values.size:
        return np.zeros(n - 1, np.bool_)
    code = np.searchsorted(present, values).astype(np.uint16)
    right, down = code[:, 1:] == code[:, :-1], code[1:] == code[:-1]
    if n > _MIN_SLOPE:
        signed = code.astype(np.int32)
        steps = np.concatenate([np.diff(signed)[~right], np.diff(signed, axis=0)[~down]])
        if np.mean(np.abs(steps) == 1) > _SHARE_OF_SLOPE:
            return np.zeros(n - 1, np.bool_)
    block = right[1:] & right[:-1] & down[:, 1:]
    kernel = np.ones((3, 3), np.uint8)
    between = (code > cv2.erode(code, kernel)) & (code < cv2.dilate(code, kernel))

    def count(where: npt.NDArray[np.bool_], source: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        return np.bincount(source[where], minlength=n)

    pixels, blocks = np.bincount(code.ravel(), minlength=n), count(block, code[:-1, :-1])
    parts = pixels - count(right, code[:, :-1]) - count(down, code[:-1]) + blocks
    compact = (blocks > 0) & (pixels >= _MIN_PIECE * np.maximum(parts, 1))
    found = compact | (10 * count(between, code) <= pixels)
    return found[present > 0]


def _soft(levels: _Values) -> npt.NDArray[np.uint8]:
    """Grey levels of any depth as 0..255; those of a dark class, whose brightest level is an area, are stretched."""
    top = int(levels.max())
    if top > 255:
        shift = max(16, top.bit_length()) - 8
        levels, top = levels >> shift, top >> shift
    if top <= FOREGROUND and 4 * np.count_nonzero(levels == top) >= np.count_nonzero(levels):
        levels = levels.astype(np.uint32) * 255 // top
    return levels.astype(np.uint8)
