"""The video of a page, of which another number of frames may turn out to be readable than its packets promised."""

from __future__ import annotations

from vidseg.errors import InputError
from vidseg.types import Frame
from vidseg.video.random_access import RandomAccess


class FramesRenumbered(InputError):
    """Frames were lost in the middle of a video: those behind have other numbers, by which ``video`` reads them."""

    def __init__(self, before: int, video: PageVideo) -> None:
        super().__init__(
            f"the video is damaged: {before} frames were listed, {video.count} can be decoded; those behind the damage"
            " have new numbers"
        )
        self.video = video


class PageVideo(RandomAccess):
    """Frames in any order, as long as they are the listed ones."""

    def read(self, index: int) -> Frame:
        """One frame.

        Raises:
            FramesRenumbered: the list was found wrong; this reader goes on with the right one.
            InputError: there is no such frame, or it cannot be decoded.
        """
        listed = self.times
        try:
            return super().read(index)
        finally:
            if self.times is not listed and self.times != listed:
                raise FramesRenumbered(len(listed), self)
