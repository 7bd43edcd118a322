"""Still images as a video: a folder in natural order, or one image file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vidseg.address import parse_address
from vidseg.errors import InputError
from vidseg.files import natural_key
from vidseg.limits import PIXEL_LIMIT
from vidseg.limits import check_pixels as check_pixels
from vidseg.types import Array, Frame, VideoInfo
from vidseg.video.reader import frame_bounds
from vidseg.video.watchdog import StoppedError, TimeLimitError, Watchdog

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_EXIF_ORIENTATION = 0x0112


class ImageSource:
    """Frames from image files. ``Frame.index`` is the place in the natural order; a damaged file leaves a gap."""

    def __init__(
        self,
        path: Path,
        *,
        frames: slice | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        fps: Fraction = Fraction(24),
        watchdog: Watchdog | None = None,
    ) -> None:
        """List the images and check their sizes from their headers; no pixels are read yet.

        Raises:
            InputError: no images, none readable, two sizes, too large, or the chosen frames do not exist.
        """
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.live = False
        self._watchdog = watchdog or Watchdog()
        self._files = [path] if path.is_file() else list_images(path)
        self._start, self._stop = frame_bounds(frames)
        try:
            size = self._common_size(path, pixel_limit)
        except BaseException:
            self.close()
            raise
        if self._start >= len(self._files):
            raise InputError(f"{path}: frames start at {self._start}, but it has only {len(self._files)} images")
        self.info = VideoInfo(
            *size,
            fps,
            frame_count=len(self._files),
            duration_s=float(len(self._files) / fps),
            codec="images",
            name=parse_address(str(path)).name,
            time_base=1 / fps,
            frame_names=tuple(file.name for file in self._files),
        )

    def __iter__(self) -> Iterator[Frame]:
        """Read the chosen images one by one; a file that cannot be read is skipped and named in :attr:`warnings`."""
        try:
            for index, file in enumerate(self._files):
                if not self._start <= index < self._stop:
                    continue
                try:
                    rgb = self._watchdog.call(partial(read_image, file), str(file))
                except StoppedError:
                    return
                except TimeLimitError:
                    raise
                except InputError as error:
                    self.warnings.append(f"skipped {error}")
                    continue
                if rgb.shape[:2] != (self.info.height, self.info.width):
                    raise InputError(f"{file}: its size changed while it was read")
                yield Frame(index, index, float(index / self.info.fps), rgb, name=file.name)
        finally:
            self.close()

    def stop(self) -> None:
        """End the iteration."""
        self._watchdog.stop()

    def close(self) -> None:
        """End the thread that reads; nothing is held open between frames."""
        self._watchdog.close(lambda: None)

    def _common_size(self, path: Path, pixel_limit: int) -> tuple[int, int]:
        first: tuple[Path, tuple[int, int]] | None = None
        for file in self._files:
            try:
                size = self._watchdog.call(partial(image_size, file), str(file))
            except InputError as error:
                if len(self._files) == 1 or isinstance(error, TimeLimitError):
                    raise
                last = error
                continue  # reported when its turn comes
            check_pixels(file, size, pixel_limit)
            if first is None:
                first = file, size
            elif size != first[1]:
                raise InputError(
                    f"{path}: images of different sizes: {first[0].name} is {first[1][0]}x{first[1][1]}, "
                    f"{file.name} is {size[0]}x{size[1]}; a video needs one size"
                )
        if first is None:
            raise InputError(f"{path}: none of its {len(self._files)} images can be read ({last})")
        return first[1]


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in natural order, hidden files left out.

    Raises:
        InputError: the folder has no images, or cannot be read.
    """
    try:
        files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    if not files:
        raise InputError(f"{folder}: a folder without images (looked for {', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda f: natural_key(f.name))


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header alone.

    Raises:
        InputError: not an image.
    """
    with _open(file) as image:
        width, height = image.size
        if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the picture to look behind it
            return width, height
        try:
            swap = image.getexif().get(_EXIF_ORIENTATION) in _TRANSPOSED
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{file}: damaged image ({error})") from error
    return (height, width) if swap else (width, height)


def read_image(file: Path, pixel_limit: int = PIXEL_LIMIT) -> Array:
    """Pixels as uint8 RGB (H, W, 3), EXIF orientation applied.

    Transparency is dropped, 16-bit grey keeps its high byte, and other deep formats are refused.

    Raises:
        InputError: not an image, damaged, more than ``pixel_limit`` pixels, or a pixel format without a plain meaning
            as RGB.
    """
    try:
        with _open(file) as image:
            check_pixels(file, image.size, pixel_limit)
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I;16"):
                grey = (np.asarray(turned).astype(np.uint16) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if turned.mode in ("I", "F"):
                raise InputError(f"{file}: {turned.mode} pixels have no fixed range; convert it to 8 or 16 bits")
            return np.array(turned.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: damaged image ({error})") from error


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise InputError(f"{file}: not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: {error}") from error
