"""Image files as a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.types import Array, Frame, VideoInfo
from vidseg.video.images import Page, pages_of, the_page
from vidseg.video.listing import odd_names
from vidseg.video.pictures import PictureSource
from vidseg.video.watchdog import TimeLimitError, Watchdog

_OTHERS = "images hold more besides the main one (previews, depth); only the main one is read"


class ImageSource(PictureSource):
    """Frames from image files. ``Frame.index`` is the place in their order."""

    def __init__(
        self,
        path: str | Path,
        files: Sequence[Path],
        *,
        name: str,
        frames: slice | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        fps: Fraction = Fraction(24),
        watchdog: Watchdog | None = None,
    ) -> None:
        """Check the headers of ``files``, which ``path`` stands for; of deep ones some are read to find their range.

        Raises:
            InputError: none readable, two sizes, too large, several images in one file, or the chosen frames do not
                exist.
        """
        super().__init__(path, len(files), frames, watchdog)
        self._files, self._pixel_limit = files, pixel_limit
        try:
            first, deep = self._headers()
            self.info = VideoInfo(
                *first.size,
                fps,
                frame_count=len(files),
                frames_are_listed=True,
                duration_s=float(len(files) / fps),
                rotation=first.orientation.degrees,
                mirrored=first.orientation.mirrored,
                codec="images",
                name=name,
                time_base=1 / fps,
                frame_names=tuple(file.name for file in files),
                levels=self._levels(deep),
            )
        except BaseException:
            self.close()
            raise
        if (odd := odd_names(files)) is not None:
            self.notes.append(odd)

    def _headers(self) -> tuple[Page, list[int]]:
        """The first page that can be read, and the indices of the deep ones. All have one size."""
        first: Page | None = None
        deep: list[int] = []
        for index, file in enumerate(self._files):
            try:
                pages = self._watchdog.call(partial(pages_of, file, self._pixel_limit), str(file))
            except InputError as error:
                if len(self._files) == 1 or isinstance(error, TimeLimitError):
                    raise
                last = error
                continue  # reported when its turn comes
            page = the_page(pages, self._pixel_limit)
            first = first or page
            if page.size != first.size:
                raise InputError(
                    f"{self._path}: images of different sizes: {first.file.name} is {first.size[0]}x{first.size[1]}, "
                    f"{file.name} is {page.size[0]}x{page.size[1]}; a video needs one size"
                )
            if page.deep:
                deep.append(index)
            if page.others:
                self._remarks.add(_OTHERS, file.name)
        if first is None:
            raise InputError(f"{self._path}: none of its {len(self._files)} images can be read ({last})")
        return first, deep

    def _page(self, index: int) -> Page:
        return pages_of(self._files[index], self._pixel_limit)[0]

    def _name(self, index: int) -> str:
        return self._files[index].name

    def _frame(self, index: int, rgb: Array) -> Frame:
        return replace(super()._frame(index, rgb), name=self._files[index].name)
