"""One image file: what its header says, and its pixels.

Images of 8 bits are read by Pillow as RGB. Deep ones (more bits, floating point) keep their values until the range of
the whole source is known, see :mod:`vidseg.video.levels`; Pillow would cut their colours to 8 bits, so that those are
read by OpenCV.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cv2.utils import logging
from PIL import Image, UnidentifiedImageError

from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES
from vidseg.limits import PIXEL_LIMIT, check_pixels
from vidseg.types import Array
from vidseg.video.levels import Levels, find_levels, to_uint8
from vidseg.video.orientation import Orientation
from vidseg.video.tiff import MAGIC, Directory, directories

_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM")
_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = {
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_x=True),
    7: Orientation(transpose=True, flip_x=True, flip_y=True),
    8: Orientation(transpose=True, flip_y=True),
}
_WHOLE = Orientation()
_DAMAGE = (OSError, ValueError, SyntaxError, KeyError, TypeError, OverflowError, cv2.error)
_GLOBALS = threading.Lock()


@dataclass(frozen=True, slots=True)
class Page:
    """One image of a file: ``size`` is (width, height) upright, ``number`` its place in the file."""

    file: Path
    size: tuple[int, int]
    orientation: Orientation = _WHOLE
    number: int = 0
    deep: bool = False
    """More than 8 bits per value."""
    by_opencv: bool = False
    turned: bool = False
    """The decoder turns it by itself, as those of TIFF do."""
    others: int = 0
    """Further images beside the main one of a JPEG: previews, depth, a second eye."""


def pages_of(file: Path, pixel_limit: int = PIXEL_LIMIT) -> list[Page]:
    """The images of a file from its headers alone: one, or the pages of a TIFF and the frames of an animation.

    ``pixel_limit`` is what the caller allows; it compares the sizes with it.

    Raises:
        InputError: not an image that can be read.
    """
    try:
        with file.open("rb") as stream:
            tiff = directories(file) if stream.read(4) in MAGIC else []
        return [_tiff_page(file, directory) for directory in tiff] if tiff else _pages(file, pixel_limit)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, OSError) and error.errno is not None:  # of the system: nothing is known of the image
            raise InputError(f"{file}: cannot be read ({error.strerror})") from error
        raise InputError(f"{file}: damaged image ({error})") from error


def the_page(pages: Sequence[Page], pixel_limit: int = PIXEL_LIMIT) -> Page:
    """The only page of a file.

    Raises:
        InputError: it has several, or more than ``pixel_limit`` pixels.
    """
    page = pages[0]
    if len(pages) > 1:
        raise InputError(
            f"{page.file}: holds {len(pages)} images where one is expected: split it, or give the file itself to "
            "`vidseg run` as a video"
        )
    check_pixels(page.file, page.size, pixel_limit, option=True)
    return page


def read_page(page: Page, opened: Image.Image | None = None) -> Array:
    """Upright pixels: uint8 RGB (H, W, 3), or of a deep page its own values, (H, W) or RGB (H, W, 3).

    ``opened`` is the file, for who reads many pages of it. Transparency is dropped.

    Raises:
        InputError: damaged, or a pixel format without a plain meaning as RGB.
    """
    try:
        if page.by_opencv:
            pixels = _read_by_opencv(page)
        elif opened is not None:
            with _pillow_limit(page.size[0] * page.size[1]):
                pixels = _read_by_pillow(page, opened)
        else:
            with open_image(page.file, page.size[0] * page.size[1]) as image:
                pixels = _read_by_pillow(page, image)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{page.file}: damaged image ({error})") from error
    if not page.turned:
        pixels = page.orientation.apply(pixels)
    if pixels.shape[1::-1] != page.size:
        raise InputError(f"{page.file}: its size is not what its header says")
    return pixels


def as_rgb(pixels: Array, levels: Levels | None) -> Array:
    """What :func:`read_page` gave as uint8 RGB (H, W, 3); ``levels`` is the range of deep pages."""
    if pixels.dtype != np.uint8 and levels is not None:
        pixels = to_uint8(pixels, levels)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header alone.

    Raises:
        InputError: not an image, too large, or several images in one file.
    """
    return the_page(pages_of(file)).size


def read_image(file: Path, pixel_limit: int = PIXEL_LIMIT) -> Array:
    """Pixels of a single image as uint8 RGB (H, W, 3), EXIF orientation applied, transparency dropped.

    The range of a deep image is found in itself.

    Raises:
        InputError: as :func:`pages_of`, :func:`the_page` and :func:`read_page`.
    """
    pixels = read_page(the_page(pages_of(file, pixel_limit), pixel_limit))
    return as_rgb(pixels, None if pixels.dtype == np.uint8 else find_levels([pixels]))


@contextmanager
def open_image(file: Path, pixels: int) -> Iterator[Image.Image]:
    """A file opened by Pillow, whose own limit of pixels gives way to ``pixels`` inside the block.

    Raises:
        InputError: not an image that Pillow reads.
    """
    with _pillow_limit(pixels):
        try:
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError as error:
            kind = file.suffix.lower()
            reason = "not an image that can be read"
            if kind and kind not in IMAGE_SUFFIXES:
                reason = f"{kind} images cannot be read: convert them to PNG or JPEG"
            raise InputError(f"{file}: {reason}") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{file}: {error}") from error
        with image:
            yield image


@contextmanager
def _pillow_limit(pixels: int) -> Iterator[None]:
    usual = Image.MAX_IMAGE_PIXELS
    if usual is None or pixels <= usual:
        yield
        return
    with _GLOBALS:
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Without the reasons that it would write to the terminal."""
    with _GLOBALS:
        usual = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(usual)


def _pages(file: Path, pixel_limit: int) -> list[Page]:
    with open_image(file, pixel_limit) as image:
        orientation = _WHOLE
        if image.format != "PNG" or "exif" in image.info:  # else Pillow would decode the image to look behind it
            orientation = _ORIENTATIONS.get(image.getexif().get(_EXIF_ORIENTATION, 1), _WHOLE)
        count = getattr(image, "n_frames", 1)
        first = 1 if image.info.get("default_image") else 0  # of an APNG, shown by who knows no animations
        deep = _is_deep(image)
        by_opencv = deep and image.mode[0] not in "IF"
        size = orientation.size(image.size)
        if image.format == "MPO":  # a JPEG
            return [Page(file, size, orientation, deep=deep, others=count - 1)]
        deep = deep and count == 1
        return [Page(file, size, orientation, number, deep, deep and by_opencv) for number in range(first, count)]


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would cut it to 8 bits, or leaves its values as they are."""
    if image.mode[0] in "IF":
        return True
    tiles: list[Any] = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else None
    if image.format == "PPM":
        return isinstance(arguments, tuple) and isinstance(arguments[-1], int) and arguments[-1] > 255
    return isinstance(arguments, str) and arguments.endswith(";16B")


def _tiff_page(file: Path, directory: Directory) -> Page:
    orientation = _ORIENTATIONS.get(directory.orientation, _WHOLE)
    deep = directory.bits > 8
    if deep and directory.samples > 1 and not directory.read_by_opencv:
        raise InputError(
            f"{file}: {directory.bits}-bit values of {directory.samples} channels, which cannot be read in this "
            "layout: convert it to PNG, or to a TIFF of 8 or 16 bits"
        )
    by_opencv = deep and directory.read_by_opencv
    return Page(file, orientation.size(directory.size), orientation, directory.number, deep, by_opencv, turned=True)


def _read_by_pillow(page: Page, image: Image.Image) -> Array:
    if page.number:
        image.seek(page.number)
    if page.deep:
        return np.array(image)
    return np.array(image.convert("RGB"))


def _read_by_opencv(page: Page) -> Array:
    data = np.fromfile(page.file, np.uint8)
    with _silent_opencv():
        if page.number:
            _, found = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page.number, page.number + 1))
            pixels = found[0] if found else None
        else:
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{page.file}: damaged image, or one of a rare kind")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[:, :, 2::-1])
