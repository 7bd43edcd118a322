"""A run as exporters see it: what is known before its frames are read, and its frames."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidseg.classes import ClassSet
from vidseg.errors import InputError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import area
from vidseg.names import printable, safe_name
from vidseg.outputs.journal import read_journal
from vidseg.outputs.layout import MANIFEST
from vidseg.outputs.thumbnails import Picture

_IMAGES = "images"  # codec of a folder of stills
KEPT_BYTES = 2**24
"""Journals up to this size (16 MiB) are read once and kept in memory; larger ones are read twice."""


@dataclass(frozen=True)
class Recording:
    """What a journal holds. Made by :func:`open_recording`."""

    journal: Path
    labels: Mapping[int, str | None]
    """Name of every object that is looked at and has a pixel, by id: one for all frames, in one line."""
    classes: ClassSet
    """Numbers of all names, those of objects without one included."""
    size: tuple[int, int] | None
    """(height, width) of the frames; None where neither ``run.json`` nor an object says it."""
    count: int
    """Frames in the journal."""
    first: int
    """Index of the first of them."""
    end: int
    """Index after the last frame, those at the end that could not be read included."""
    video: str
    """Name of the video."""
    fps: Fraction
    stills: Path | None
    """The folder that the frames are files of, where they are."""
    video_id: int = 1
    """Number of the video in files that may be merged with those of other videos."""
    pictures: Mapping[int, Picture] = field(default_factory=dict)
    """Images of some frames, by index, for the report."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """What ``run.json`` says."""
    warnings: Sequence[str] = ()
    """What went wrong in the run."""
    kept: Sequence[FrameMasks] | None = field(default=None, repr=False)
    """All frames of the journal, where it is small."""

    def read(self) -> Iterator[FrameMasks]:
        """All frames in order, with the objects of ``labels`` that have a pixel; an object has one name throughout.

        Raises:
            InputError: the journal is unreadable.
        """
        for masks in read_journal(self.journal) if self.kept is None else self.kept:
            kept = [k for k, i in enumerate(masks.ids) if i in self.labels and area(masks.rles[k])]
            yield replace(
                masks,
                ids=(ids := tuple(masks.ids[k] for k in kept)),
                boxes=masks.boxes[kept],
                scores=masks.scores[kept],
                labels=tuple(self.labels[i] for i in ids),
                rles=tuple(masks.rles[k] for k in kept),
                signals=tuple(masks.signals[k] for k in kept),
            )

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) of the frames.

        Raises:
            InputError: they are not known.
        """
        if self.size is None:
            raise InputError(f"{self.journal}: no objects in it")
        return self.size

    @property
    def printable_video(self) -> str:
        """Name of the video in one line."""
        return printable(self.video)

    def name_of(self, object_id: int) -> str:
        """What a person reads: the name, else "object 3"."""
        return self.labels[object_id] or f"object {object_id}"

    def picture(self, masks: FrameMasks) -> str:
        """File name of the image of a frame."""
        return picture_name(self.video, masks.frame_index, masks.name)


def picture_name(video: str, index: int, name: str | None) -> str:
    """What the image of a frame is called: as the still that it is, else after the video and its index.

    So images of different videos may lie in one folder.
    """
    return f"{safe_name(video)}_{index:05d}.jpg" if name is None else name


def open_recording(
    journal: Path,
    *,
    names: Mapping[int, str] | None = None,
    only: Collection[int] = (),
    classes: ClassSet | None = None,
    video_id: int | None = None,
) -> Recording:
    """Read through a journal, and the ``run.json`` beside it where there is one.

    Args:
        journal: a ``masks.jsonl``.
        names: names of objects by id, in place of those in the journal.
        only: ids of the objects to look at; none: all.
        classes: numbers of classes; default: those of the run, else the names that occur, in alphabetical order.
        video_id: see :attr:`Recording.video_id`; default: that of the run.

    Raises:
        InputError: the journal is unreadable.
    """
    manifest = _manifest_of(journal)
    video: Mapping[str, Any] = manifest.get("video", {})
    size, count, first, end = _size_of(video), 0, 0, 0
    labels: dict[int, str | None] = {}
    kept: list[FrameMasks] | None = [] if journal.is_file() and journal.stat().st_size <= KEPT_BYTES else None
    for masks in read_journal(journal):
        if kept is not None:
            kept.append(masks)
        first, end, count = masks.frame_index if not count else first, masks.frame_index + 1, count + 1
        for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True):
            size = rle.height, rle.width
            if labels.get(object_id) is None and area(rle):
                labels[object_id] = printable(label).strip() or None if label is not None else None
    labels = {i: (names or {}).get(i, label) for i, label in sorted(labels.items()) if not only or i in only}
    if classes is None:
        classes = _classes_of(manifest)
    stills = video.get("codec") == _IMAGES
    return Recording(
        journal,
        labels,
        classes.including(labels.values()),
        size,
        count,
        first,
        max(end, _whole(video.get("frame_count")) if stills else 0),
        str(video.get("name") or journal.absolute().parent.name),
        _rate_of(video),
        _folder_of(manifest) if stills else None,
        video_id or max(1, _whole(video.get("id"))),
        manifest=manifest,
        warnings=[str(text) for text in manifest.get("warnings", ())],
        kept=kept,
    )


def _manifest_of(journal: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        manifest = json.loads((journal.parent / MANIFEST).read_bytes())
        if isinstance(manifest, dict):
            return {key: value for key, value in manifest.items() if isinstance(value, (dict, list, str))}
    return {}


def _size_of(video: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = _whole(video.get("height")), _whole(video.get("width"))
    return (height, width) if height > 0 and width > 0 else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _rate_of(video: Mapping[str, Any]) -> Fraction:
    with suppress(ValueError, TypeError, ZeroDivisionError):
        rate = Fraction(video.get("fps", 25))
        return rate if rate > 0 else Fraction(25)
    return Fraction(25)


def _folder_of(manifest: Mapping[str, Any]) -> Path | None:
    with suppress(LookupError, TypeError, OSError):
        folder = Path(manifest["input"]["path"])
        return folder if folder.is_dir() else folder.parent if folder.parent.is_dir() else None
    return None


def _classes_of(manifest: Mapping[str, Any]) -> ClassSet:
    given = manifest.get("classes")
    if isinstance(given, dict) and all(isinstance(number, int) for number in given.values()):
        return ClassSet(given)
    return ClassSet({})
