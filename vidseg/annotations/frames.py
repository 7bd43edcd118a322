"""Which frame of a video a labelled picture is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vidseg.errors import InputError
from vidseg.types import VideoInfo

_NUMBER_AT_THE_END = re.compile(r"(\d+)$")


@dataclass(frozen=True, slots=True)
class Picture:
    """What a file of labels says of one of its pictures."""

    name: str = ""
    """Of its file, perhaps with folders before it."""
    number: int | None = None
    """Of the frame, from 0, where the file says it."""
    hw: tuple[int, int] | None = None
    """(height, width), where the file says it."""


class FrameFinder:
    """Finds the frames of labelled pictures: by the names of stills, else by number."""

    def __init__(self, video: VideoInfo, frames: tuple[int, int | None] = (0, None)) -> None:
        """Frames of ``video`` from the first to the end (exclusive) of ``frames``."""
        self.video, self._frames = video, frames
        self._by_name = {name: index for index, name in enumerate(video.frame_names)}
        stems: dict[str, list[int]] = {}
        for name, index in self._by_name.items():
            stems.setdefault(PurePosixPath(name).stem, []).append(index)
        self._by_stem = {stem: found[0] for stem, found in stems.items() if len(found) == 1}
        self._unknown: list[str] = []
        self._outside = 0

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.video.height, self.video.width

    def find(self, pictures: Sequence[Picture], where: str) -> list[int | None]:
        """Indices of the frames; None for a picture that is none of them.

        Raises:
            InputError: two pictures are the same frame; a picture has another size.
        """
        found = [self._named(picture.name) for picture in pictures]
        if not any(index is not None for index in found):
            found = [self._numbered(picture) for picture in pictures]
        seen: dict[int, str] = {}
        for place, (picture, index) in enumerate(zip(pictures, found, strict=True)):
            shown = picture.name or f"frame {picture.number}"
            if index is None:
                self._unknown.append(shown)
            elif not self._asked_for(index):
                self._outside += 1
                found[place] = None
            elif index in seen:
                raise InputError(f"{where}: {seen[index]} and {shown} are both frame {index}")
            elif picture.hw not in (None, self.hw):
                raise InputError(f"{where}: {shown} is {_size(picture.hw)}, the frames are {_size(self.hw)}")
            else:
                seen[index] = shown
        return found

    def notes(self) -> list[str]:
        """What a user should know."""
        count = len(self._unknown)
        return [f"{self._unknown[0]}{_others(count)} no frame of {self.video.name}"] if count else []

    def nothing_found(self) -> str:
        """Why no picture was found."""
        if self._unknown:
            names = self.video.frame_names
            there = f"the first one is {names[0]}" if names else f"{self.video.frame_count or 'unknown'} in number"
            count = len(self._unknown)
            return f"{self._unknown[0]}{_others(count)} no frame of {self.video.name} (its frames: {there})"
        if self._outside:
            first, end = self._frames
            return f"nothing is labelled in --frames {first}:{'' if end is None else end}"
        return "nothing is labelled in it"

    def _named(self, name: str) -> int | None:
        base = PurePosixPath(name.replace("\\", "/")).name
        return self._by_name.get(base, self._by_stem.get(PurePosixPath(base).stem)) if base else None

    def _numbered(self, picture: Picture) -> int | None:
        number = picture.number
        if number is None and not self._by_name:  # of a video: the number that its pictures were saved with
            match = _NUMBER_AT_THE_END.search(PurePosixPath(picture.name.replace("\\", "/")).stem)
            number = int(match[1]) if match else None
        count = self.video.frame_count if self.video.frames_are_listed else None
        return number if number is not None and number >= 0 and (count is None or number < count) else None

    def _asked_for(self, index: int) -> bool:
        first, end = self._frames
        return first <= index and (end is None or index < end)


def _others(count: int) -> str:
    return " is" if count == 1 else f" and {count - 1} other labelled picture{'s' * (count > 2)} are"


def _size(hw: tuple[int, int] | None) -> str:
    return "" if hw is None else f"{hw[1]}x{hw[0]}"
