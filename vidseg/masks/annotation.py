"""Mask images given by the user: DAVIS palette PNG, black and white, or an index image; anything else is refused.

A soft-edged or RGB picture of a mask would otherwise turn into dozens of objects, one per grey level or colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vidseg.errors import InputError
from vidseg.types import Array

MAX_OBJECTS = 64
"""More distinct ids than this in one mask image are taken for a picture that is no index mask."""

_MAX_GREY_ID = 32  # a grey image without a palette names ids only up to here; a soft edge has larger values
_HINT = "give a palette PNG as in DAVIS (index = object), or a black and white one (0 and 255)"


def read_annotation(path: str | Path, size: tuple[int, int]) -> dict[int, npt.NDArray[np.bool_]]:
    """Objects of a mask image.

    Args:
        path: PNG file: palette (index = object id), 8-bit grey with 0 and 255 or 0 and 1 (one object, id 1), grey with
            small ids (0..32), or 1 bit.
        size: (height, width) of the frame it belongs to.

    Returns:
        Object id to bool mask (H, W), ids ascending; every mask has at least one pixel.

    Raises:
        InputError: not a PNG, another size, RGB, a soft edge, too many values, or nothing but background.
    """
    index = _read_index(Path(path), size)
    values = [int(v) for v in np.unique(index)]
    if not any(values):
        raise InputError(f"{path}: the mask is empty (all pixels are 0)")
    return {value: index == value for value in values if value}


def _read_index(path: Path, size: tuple[int, int]) -> Array:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.size != (size[1], size[0]):
                raise InputError(
                    f"{path}: the mask is {image.width}x{image.height}, the frame is {size[1]}x{size[0]}; resize it "
                    "with nearest neighbour"
                )
            mode = image.mode
            if mode not in ("P", "L", "1"):
                raise InputError(f"{path}: a mask with {mode} pixels; {_HINT}")
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a PNG image; {_HINT}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged PNG ({error})") from error
    if mode == "1":
        return pixels.astype(np.uint8)
    values = np.unique(pixels)
    if mode == "L" and set(values.tolist()) <= {0, 255}:
        return (pixels == 255).astype(np.uint8)
    ids = values[values > 0]
    if len(ids) > MAX_OBJECTS or (mode == "L" and len(ids) and ids[-1] > _MAX_GREY_ID):
        raise InputError(
            f"{path}: {len(ids)} different values up to {ids[-1]}: a soft edge or a picture, not object ids; {_HINT}"
        )
    return pixels
