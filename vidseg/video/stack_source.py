"""A file of several images as a video: the pages of a TIFF, or an animated WebP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT, check_pixels
from vidseg.types import Array, Frame, VideoInfo
from vidseg.video.images import Page, open_image, read_page
from vidseg.video.pictures import PictureSource
from vidseg.video.watchdog import Watchdog


class StackSource(PictureSource):
    """Frames from the pages of one file. Those of an animation have the times that it names."""

    def __init__(
        self,
        file: Path,
        pages: Sequence[Page],
        *,
        name: str,
        frames: slice | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        fps: Fraction = Fraction(24),
        watchdog: Watchdog | None = None,
    ) -> None:
        """``pages`` are those of :func:`vidseg.video.images.pages_of`; ``fps`` is the rate of what names no times.

        Raises:
            InputError: pages of two sizes, too large, the first one damaged, or the chosen frames do not exist.
        """
        super().__init__(file, len(pages), frames, watchdog)
        self._pages = pages
        self._image: Image.Image | None = None
        first = pages[0]
        try:
            check_pixels(file, first.size, pixel_limit, option=True)
            for number, page in enumerate(pages):
                if page.size != first.size:
                    raise InputError(
                        f"{file}: pages of different sizes: number 0 is {first.size[0]}x{first.size[1]}, number "
                        f"{number} is {page.size[0]}x{page.size[1]}; a video needs one size"
                    )
            self._watchdog.call(lambda: self._read(first), f"{file}: its first page")
            told: dict[Any, Any] = {} if self._image is None else self._image.info
            self._timed, shown_ms = "timestamp" in told, int(told.get("duration", 0))
            self.info = VideoInfo(
                *first.size,
                Fraction(1000, shown_ms) if self._timed and shown_ms > 0 else fps,
                frame_count=len(pages),
                frames_are_listed=True,
                duration_s=None if self._timed else float(len(pages) / fps),
                rotation=first.orientation.degrees,
                mirrored=first.orientation.mirrored,
                codec="pages",
                name=name,
                time_base=Fraction(1, 1000) if self._timed else 1 / fps,
                levels=self._levels([number for number, page in enumerate(pages) if page.deep]),
            )
        except BaseException:
            self.close()
            raise

    def _page(self, index: int) -> Page:
        return self._pages[index]

    def _read(self, page: Page) -> Array:
        """Pixels; the file stays open, so that each page is found from the last one."""
        if self._image is None and not page.by_opencv:
            self._image = self._held.enter_context(open_image(page.file, page.size[0] * page.size[1]))
        return read_page(page, self._image)

    def _frame(self, index: int, rgb: Array) -> Frame:
        frame = super()._frame(index, rgb)
        if not self._timed or self._image is None:
            return frame
        milliseconds = int(self._image.info["timestamp"])
        return replace(frame, pts=milliseconds, time_s=milliseconds / 1000)

    def _name(self, index: int) -> str:
        return f"page {index}"
