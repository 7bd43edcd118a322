"""Labels made in other tools, as prompts: what ``--from FORMAT PATH`` reads.

A reader takes a file or a folder and gives :class:`~vidseg.annotations.shapes.Shape` objects; which object a shape
belongs to, and how shapes become prompts, is the same for all formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vidseg.annotations.coco import read_coco
from vidseg.annotations.cvat import read_cvat
from vidseg.annotations.datumaro import read_datumaro
from vidseg.annotations.frames import FrameFinder
from vidseg.annotations.labelme import read_labelme
from vidseg.annotations.shapes import Shape, prompts_of
from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.types import Prompt, VideoInfo

READERS: Mapping[str, Callable[[Path, FrameFinder], Iterator[Shape]]] = {
    "labelme": read_labelme,
    "cvat": read_cvat,
    "coco": read_coco,
    "datumaro": read_datumaro,
}
"""By the name of the format, which is also that of the export."""


def check_format(name: str) -> None:
    """Refuse a format that no reader knows (UsageError)."""
    if name not in READERS:
        raise UsageError(f"--from {name}{did_you_mean(name, READERS)}: allowed are {', '.join(READERS)}")


def read_annotations(
    name: str, path: Path, video: VideoInfo, frames: tuple[int, int | None] = (0, None)
) -> tuple[list[Prompt], list[str]]:
    """The objects that somebody labelled in another tool, and what the user should know of how they were read.

    Args:
        name: of the format, one of :data:`READERS`.
        path: the file or folder.
        video: whose frames were labelled: found by the names of their files, else by their numbers.
        frames: first and end (exclusive) of those to read.

    Raises:
        UsageError: an unknown format. InputError: unreadable, something else, or nothing in it is on these frames.
    """
    check_format(name)
    finder = FrameFinder(video, frames)
    prompts = prompts_of(READERS[name](path, finder))
    if not prompts:
        raise InputError(f"--from {name} {path}: {finder.nothing_found()}")
    return prompts, [f"--from {name} {path}: {note}" for note in finder.notes()]
