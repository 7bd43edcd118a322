"""What folders of images and files of several pages have in common as videos."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vidseg.errors import InputError
from vidseg.types import Array, Frame, Source, VideoInfo
from vidseg.video.damage import Damage
from vidseg.video.images import Page, as_rgb, read_page
from vidseg.video.levels import OUTSIDE, Levels, find_levels, outside
from vidseg.video.reading import frame_bounds
from vidseg.video.watchdog import StoppedError, TimeLimitError, Watchdog

SAMPLES = 16
"""Deep images, spread over the source, from which its range is found."""


class PictureSource(Source, ABC):
    """Images of one size, each with an index; one that cannot be read leaves a gap."""

    live = False
    info: VideoInfo

    def __init__(self, path: str | Path, count: int, frames: slice | None, watchdog: Watchdog | None) -> None:
        """``path`` is what the user named, ``count`` the number of its images.

        Raises:
            InputError: the chosen frames do not exist.
        """
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._path, self._count = path, count
        self._reasons: dict[str, str] = {}
        self._skipped = Damage(self.warnings, "images skipped: {count} ({places}): {kind}")
        self._remarks = Damage(self.notes, "{count} {kind} ({places})")
        self._start, self._stop = frame_bounds(frames)
        self._watchdog = watchdog or Watchdog()
        self._held = ExitStack()
        """What is held open between frames."""
        if self._start >= count:
            self.close()
            raise InputError(f"{path}: frames start at {self._start}, but it has only {count} images")

    @abstractmethod
    def _page(self, index: int) -> Page:
        """Header of an image."""

    @abstractmethod
    def _name(self, index: int) -> str:
        """What an image is called in messages."""

    def _frame(self, index: int, rgb: Array) -> Frame:
        return Frame(index, index, float(index / self.info.fps), rgb)

    def _read(self, page: Page) -> Array:
        return read_page(page)

    def __iter__(self) -> Iterator[Frame]:
        """Read the chosen images one by one; those that cannot be read are skipped and named in :attr:`warnings`.

        Raises:
            InputError: it was read or closed; none of them can be read, or one takes too long.
        """
        self._watchdog.check_unread(str(self._path))
        chosen = range(self._start, int(min(self._stop, self._count)))
        some = False
        try:
            for index in chosen:
                try:
                    frame = self._watchdog.call(partial(self._deliver, index), f"{self._path}: {self._name(index)}")
                except StoppedError:
                    return
                except TimeLimitError:
                    raise
                except InputError as error:
                    self._skip(index, error)
                    continue
                some = True
                yield frame
            if not some:
                reason = self.warnings[0] if self.warnings else "no image"
                raise InputError(f"{self._path}: none of its {len(chosen)} images can be read; {reason}")
        finally:
            self.close()

    def at(self, index: int) -> Frame:
        """One image, in any order, before the source is closed.

        Raises:
            InputError: it cannot be read, or takes too long.
        """
        return self._watchdog.call(partial(self._deliver, index), f"{self._path}: {self._name(index)}")

    def stop(self) -> None:
        """End the iteration."""
        self._watchdog.stop()

    def close(self) -> None:
        """End the thread that reads."""
        self._watchdog.close(self._held.close)

    def _pixels(self, index: int) -> Array:
        return self._read(self._page(index))

    def _deliver(self, index: int) -> Frame:
        page = self._page(index)
        if page.size != (self.info.width, self.info.height):
            raise InputError(f"{page.file}: its size changed while it was read")
        pixels = self._read(page)
        if self.info.levels is not None and page.deep and outside(pixels, self.info.levels):
            self._remarks.add(OUTSIDE, self._name(index))
        return self._frame(index, as_rgb(pixels, self.info.levels))

    def _skip(self, index: int, error: InputError) -> None:
        """Equal reasons are one line, also where they differ in numbers."""
        reason = str(error).split(": ", 1)[-1]
        known = re.sub(r"\d+", "0", reason)
        self._reasons.setdefault(known, reason)
        self._skipped.add(self._reasons[known], self._name(index))

    def _levels(self, deep: Sequence[int]) -> Levels | None:
        """The range of the deep images, whose indices are given."""
        count = min(SAMPLES, len(deep))
        return find_levels(self._samples(deep[k * len(deep) // count] for k in range(count))) if count else None

    def _samples(self, indices: Iterable[int]) -> Iterator[Array]:
        for index in indices:
            try:
                yield self._watchdog.call(partial(self._pixels, index), f"{self._path}: {self._name(index)}")
            except TimeLimitError:
                raise
            except InputError:  # reported when its turn comes
                continue
