"""Which videos the page may open, and where the run of each one is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidseg.address import parse_address
from vidseg.errors import InputError, UsageError
from vidseg.files import IMAGE_SUFFIXES
from vidseg.names import safe_name
from vidseg.outputs.layout import MANIFEST
from vidseg.video.folders import look_into

UPLOADS = "uploads"
"""Folder below the output folder that holds what was uploaded."""
_ABOVE = 3  # folders


@dataclass(frozen=True)
class LibraryVideo:
    """A video that can be opened: ``key`` is its name on the page, ``run`` the folder of its results."""

    key: str
    path: Path
    run: Path


class Library:
    """The videos below a path and those that were uploaded; nothing else can be opened."""

    def __init__(self, path: Path | None, output: Path) -> None:
        """``path``: a video, a folder of videos or of frames, the folder of a run, or None (uploads only).

        Raises:
            InputError: there is nothing at ``path``.
        """
        self.path, self.output = path, output
        self.uploads = output / UPLOADS
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
        self._of_run = None if path is None else _input_of(path)
        if self._of_run is not None and not self._of_run.exists():
            missing = f"{path}: the video of this run, {self._of_run}, is not there"
            raise InputError(f"{missing}; if it was moved: vidseg ui VIDEO --output {path}")

    def clips(self) -> list[LibraryVideo]:
        """What can be opened now, in natural order."""
        clips: list[LibraryVideo] = []
        taken: set[str] = set()
        named = [*self._named()]
        for path in [*named, *self._uploaded()]:
            key = path.name
            while key in {clip.key for clip in clips}:
                key = f"{path.parent.name}/{key}"
            run = self._run_of(path, taken, alone=len(named) == 1 and path in named)
            taken.add(run.name.casefold())
            clips.append(LibraryVideo(key, path, run))
        return clips

    def find(self, key: str) -> LibraryVideo:
        """The clip of that name.

        Raises:
            UsageError: there is none.
        """
        for clip in self.clips():
            if clip.key == key:
                return clip
        raise UsageError(f"{key}: no such video here; open one from the list")

    def _named(self) -> Iterator[Path]:
        if self.path is None:
            return
        if self._of_run is not None:
            yield self._of_run
        elif not self.path.is_dir():
            yield self.path
        else:
            content = look_into(self.path)
            if len(content.frames) > len(content.videos):
                yield self.path
                return
            root = self.path.resolve()
            for entry in content.videos:
                if entry.resolve().is_relative_to(root):
                    yield entry
            for folder in content.folders:
                if folder.resolve().is_relative_to(root) and any(
                    p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir()
                ):
                    yield folder

    def _uploaded(self) -> list[Path]:
        return list(look_into(self.uploads).videos) if self.uploads.is_dir() else []

    def _run_of(self, path: Path, taken: set[str], *, alone: bool) -> Path:
        if alone and self.path is not None and self._of_run is not None:
            return self.path
        if alone and (self.output / MANIFEST).is_file():
            return self.output
        name = safe_name(parse_address(str(path)).name)
        return self.output / (safe_name(path.name) if name.casefold() in taken else name)


def _input_of(folder: Path) -> Path | None:
    """The video of the run in a folder; None where there is no run.

    A relative path is looked for from here, and from the folders above the run: it may have been made there.
    """
    try:
        path = Path(json.loads((folder / MANIFEST).read_bytes())["input"]["path"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    places = [base / path for base in (Path(), *folder.resolve().parents[:_ABOVE])]
    return next((place for place in places if place.exists()), path)
