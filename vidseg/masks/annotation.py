"""The masks of ``--mask``: every object of a mask file, with its id. What values mean is decided in ``masks.files``.

Ids are the values of a label image and the indices of a palette, of any number and up to 16 bits. Colours of the DAVIS
palette are its indices, other colours are counted from 1. A mask of one object has the id 1, or the small value that it
is drawn with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.masks.files import FORMATS, MaskFile, read_mask_values
from vidseg.masks.palette import davis_palette
from vidseg.storage_cache import here
from vidseg.types import VideoInfo

_MAX_ID_ALONE = 32  # a larger value alone in a grey file of 8 bits is a brightness, not an id
_WHITES = (255, 65535)
_HINT = "give a palette PNG as in DAVIS (index = object), a label image (8 or 16 bits), or a black and white one"
_TRANSPOSED = (5, 6, 7, 8)
_EXIF_ORIENTATION = 0x0112
_SAME_SHAPE = 0.01


def read_annotation(path: str | Path, video: VideoInfo | None = None) -> dict[int, npt.NDArray[np.bool_]]:
    """Objects of a mask file.

    Args:
        path: a palette image, a label image of 8 or 16 bits (grey, or colours), or a black and white one.
        video: whose frames it belongs to; says how they were turned. None: not known yet, any size will do.

    Returns:
        Object id to bool mask (H, W), ids ascending; every mask has at least one pixel.

    Raises:
        InputError: unreadable, another size than the frames, a soft edge or a photograph, or only background.
    """
    path = here(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; name the mask of one frame in it, once per frame: [FRAME:]FILE")
    mode = _check_size(path, video)
    file = read_mask_values(path, pixel_limit=PIXEL_LIMIT if video is None else video.width * video.height)
    if file.kind == "empty":
        raise InputError(f"{path}: the mask is empty (all pixels are background)")
    if file.kind == "soft":
        count = len(np.unique(file.values)) - 1
        what = "grey levels that do not form regions: a soft edge or a photograph, not objects"
        raise InputError(f"{path}: {count} {what}; {_HINT}")
    values = [int(value) for value in np.unique(file.values) if value]
    ids = _ids(file, mode, values)
    return {ids[value]: file.values == value for value in sorted(values, key=ids.__getitem__)}


def _ids(file: MaskFile, mode: str, values: list[int]) -> dict[int, int]:
    if file.values.dtype == np.int32 and mode not in ("I", "I;16"):  # colours as 65536 R + 256 G + B
        davis = {65536 * r + 256 * g + b: index for index, (r, g, b) in enumerate(davis_palette().tolist())}
        known = all(value in davis for value in values)
        return {value: davis[value] if known else number for number, value in enumerate(values, 1)}
    if file.kind == "labels":
        return {value: value for value in values}
    (value,) = values
    brightness = value in _WHITES or (file.values.dtype == np.uint8 and value > _MAX_ID_ALONE)
    return {value: 1 if brightness else value}


def _check_size(path: Path, video: VideoInfo | None) -> str:
    """The mode of the pixels in Pillow's words, when the size is that of the frames.

    Raises:
        InputError: it is not; the message says why, as far as sizes tell.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
            turned = "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION) in _TRANSPOSED
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read; {_HINT}") from error
    if turned and image.format != "TIFF":  # the header of a TIFF tells the upright size
        width, height = height, width
    if video is None or (width, height) == (video.width, video.height):
        return mode
    sizes = f"{path}: the mask is {width}x{height}, the frame is {video.width}x{video.height}"
    if (height, width) == (video.width, video.height):
        raise InputError(f"{sizes}: the sides are swapped; {_how_to_turn(video)}")
    if abs(width * video.height / (height * video.width) - 1) < _SAME_SHAPE:
        raise InputError(f"{sizes}: it was made for another size of the same image; resize it with nearest neighbour")
    raise InputError(f"{sizes}: the aspect ratio differs, so it belongs to another image or to a part of this one")


def _how_to_turn(video: VideoInfo) -> str:
    if video.rotation not in (90, 270):
        return "turn the mask by 90 degrees, in the direction that fits the frame"
    how = "EXIF orientation" if video.codec in ("images", "pages") else "rotation"
    mirror = ", then mirror it top to bottom" if video.mirrored else ""
    return (
        f"the frames are turned by their {how}, the mask seems not to be: turn it by {video.rotation} degrees "
        f"clockwise{mirror}"
    )
