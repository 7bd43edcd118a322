"""Frames over a wire: images as they are in files, or raw pixels."""

from __future__ import annotations

import io
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.masks.frame_masks import LabelMap

RAW = "application/octet-stream"
IMAGES = ("image/jpeg", "image/png", "image/webp")


def decode_frame(data: bytes, kind: str, width: int | None = None, height: int | None = None) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 3), uint8 RGB, of an image file, or of raw RGB bytes with a width and a height.

    Raises:
        InputError: another kind, or data that is not what it is said to be.
    """
    if kind == RAW:
        if not width or not height or width * height > PIXEL_LIMIT or len(data) != width * height * 3:
            raise InputError(
                f"a raw frame has width x height x 3 bytes, RGB; got {len(data)} bytes for {width} x {height}:"
                " give ?width= and ?height="
            )
        return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
    if kind not in IMAGES:
        raise InputError(f"content-type {kind or 'missing'}: {', '.join(IMAGES)} or {RAW} expected")
    try:
        image = Image.open(io.BytesIO(data), formats=(kind.removeprefix("image/"),))
        if image.width * image.height > PIXEL_LIMIT:  # known from the header, before memory is taken
            raise InputError(f"a frame of {image.width}x{image.height} is larger than {PIXEL_LIMIT} pixels")
        return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"the frame is not a whole image of type {kind}") from error


def encode_frame(rgb: npt.NDArray[np.uint8], form: Literal["raw", "png", "jpeg"]) -> tuple[bytes, str, dict[str, int]]:
    """Data, content type and query of a frame; ``jpeg`` is the only form that loses something."""
    if form == "raw":
        return rgb.tobytes(), RAW, {"width": rgb.shape[1], "height": rgb.shape[0]}
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1] if form == "png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    _, data = cv2.imencode(f".{form}", rgb[..., ::-1], settings)
    return data.tobytes(), f"image/{form}", {}


def label_map_png(labels: LabelMap) -> bytes:
    """A label map as a grey PNG of 8 bits, of 16 where ids are larger than 255."""
    dtype = np.uint8 if labels.max(initial=0) <= 255 else np.uint16
    _, data = cv2.imencode(".png", labels.astype(dtype), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()
