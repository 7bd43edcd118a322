"""The journal of a run while frames are computed and corrected in any order.

``masks.jsonl`` stays what it is: one line per frame, in order. A frame behind its end is appended to it. Any other goes
to ``changes.jsonl`` beside it, whose last line for a frame counts, and :meth:`Results.settle` brings both together by
writing the journal anew. So nothing is lost by a kill: what was not settled is settled when the folder is opened again.

Only places of lines are kept in memory, and area, score and trust of every object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import RLock
from typing import IO, Any, NamedTuple

from pycocotools.mask import area

from vidseg.atomic_files import atomic_file
from vidseg.errors import InputError, output_error
from vidseg.masks.trust import Signals, trust
from vidseg.outputs.layout import CHANGES, JOURNAL

Objects = list[dict[str, Any]]


class Fact(NamedTuple):
    """What is known of an object on a frame without reading its line again."""

    area: int
    score: float
    trust: float | None
    """How far the mask can be trusted, 0..1; None where nothing was measured."""


Facts = dict[int, Fact]
"""Of one frame, by id."""


class Results:
    """Lines of a journal by frame. May be read from several threads; one thread writes."""

    def __init__(self, folder: Path) -> None:
        """Read what is in the folder, which is held.

        Raises:
            InputError: a line that is no result. OutputError: the folder cannot be written.
        """
        self._lock = RLock()
        self._journal, self._changes = folder / JOURNAL, folder / CHANGES
        self._files: dict[Path, IO[bytes]] = {}
        self._places: dict[int, tuple[Path, int, int]] = {}
        self.facts: dict[int, Facts] = {}
        self._last = -1
        for path in (self._journal, self._changes):
            self._open(path)
            self._load(path)
        if self._size(self._changes):
            self.settle()

    @property
    def frames(self) -> list[int]:
        """Frames that have a result, in order."""
        with self._lock:
            return sorted(self._places)

    def line(self, frame: int) -> bytes | None:
        """The line of a frame, with its end."""
        with self._lock:
            if frame not in self._places:
                return None
            path, start, length = self._places[frame]
            file = self._files[path]
            return os.pread(file.fileno(), length, start)

    def objects(self, frame: int) -> Objects:
        """The objects of a frame as the journal has them; none where it has no result."""
        line = self.line(frame)
        return [] if line is None else list(json.loads(line)["objects"])

    def objects_known(self) -> tuple[list[int], dict[int, str]]:
        """Ids in the journal, and the names that they have there."""
        ids = sorted({i for facts in self.facts.values() for i in facts})
        names: dict[int, str] = {}
        missing = set(ids)
        for frame in sorted(self.facts, key=lambda f: -len(self.facts[f])):
            if missing & self.facts[frame].keys():
                names |= {o["id"]: o["label"] for o in self.objects(frame) if o.get("label")}
                missing -= self.facts[frame].keys()
            if not missing:
                break
        return ids, names

    def put(self, frame: int, line: bytes | None) -> None:
        """Replace the line of a frame; None: it has no result any more.

        Raises:
            OutputError: the disk is full or the like; what was there stays.
        """
        with self._lock:
            behind = line is not None and frame > self._last and not self._size(self._changes)
            path = self._journal if behind else self._changes
            text = (json.dumps({"frame": frame, "gone": True}) + "\n").encode() if line is None else line
            start = self._append(path, text)
            if line is None:
                self._places.pop(frame, None)
                self.facts.pop(frame, None)
            else:
                self._places[frame] = path, start, len(line)
                self.facts[frame] = _facts(json.loads(line))
            if behind:
                self._last = frame

    def settle(self, names: Mapping[int, str] | None = None) -> None:
        """Write the journal anew, in order, where there are changes. ``names`` replace the labels of all objects.

        Raises:
            OutputError: it cannot be written; nothing is lost.
        """
        with self._lock:
            if names is not None:
                self._rewrite((frame, _named(self.line(frame) or b"", names)) for frame in self.frames)
            elif self._size(self._changes):
                self._rewrite((frame, self.line(frame) or b"") for frame in self.frames)

    def cut(self, first: int) -> None:
        """Forget all results from a frame on.

        Raises:
            OutputError: it cannot be written; nothing is lost.
        """
        with self._lock:
            if any(frame >= first for frame in self._places):
                self._rewrite((frame, self.line(frame) or b"") for frame in self.frames if frame < first)
                self.facts = {frame: facts for frame, facts in self.facts.items() if frame < first}

    def time(self, frame: int) -> int:
        """Timestamp (pts) of a frame that has a result."""
        return int(json.loads(self.line(frame) or b"")["pts"])

    def renumber(self, places: Mapping[int, int]) -> dict[int, int]:
        """Move every line to the frame of its timestamp; ``places`` are numbers by pts. Gives new numbers by old ones.

        Raises:
            OutputError: it cannot be written; nothing is lost.
        """
        with self._lock:
            old = {places.get(self.time(frame), frame): frame for frame in self.frames}
            moved = {frame: new for new, frame in old.items()}
            self._rewrite((new, _numbered(self.line(old[new]) or b"", new)) for new in sorted(old))
            self.facts = {new: self.facts[frame] for new, frame in old.items()}
            return moved

    def close(self) -> None:
        """Close the files; empty ones go."""
        with self._lock:
            empty = [path for path in self._files if not self._size(path)]
            for file in self._files.values():
                file.close()
            for path in empty:
                path.unlink(missing_ok=True)

    def _rewrite(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """A new journal of these lines, in order; nothing is left of the changes."""
        places: dict[int, tuple[Path, int, int]] = {}
        with atomic_file(self._journal) as file:
            for frame, line in lines:
                places[frame] = self._journal, file.tell(), len(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._open(self._journal)
        self._places = places
        self._last = max(places, default=-1)
        try:
            self._files[self._changes].truncate(0)
        except OSError as error:
            raise output_error(self._changes, error) from error

    def _open(self, path: Path) -> None:
        if path in self._files:
            self._files[path].close()
        try:
            self._files[path] = path.open("a+b", buffering=0)
        except OSError as error:
            raise output_error(path, error) from error

    def _size(self, path: Path) -> int:
        return os.fstat(self._files[path].fileno()).st_size

    def _append(self, path: Path, text: bytes) -> int:
        file, start = self._files[path], self._size(path)
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            file.truncate(start)
            raise output_error(path, error) from error
        return start

    def _load(self, path: Path) -> None:
        for number, (line, start) in enumerate(_lines(path), 1):
            try:
                record = json.loads(line)
                frame = int(record["frame"])
                if record.get("gone"):
                    self._places.pop(frame, None)
                    self.facts.pop(frame, None)
                    continue
                self.facts[frame] = _facts(record)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not a line of a masks.jsonl ({error})") from error
            self._places[frame] = path, start, len(line)
            if path == self._journal:
                self._last = max(self._last, frame)


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines and where they begin; a half-written last one is cut off."""
    start = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(start)
                return
            yield line, start
            start += len(line)


def _facts(record: Mapping[str, Any]) -> Facts:
    """Areas by pycocotools: a long journal has hundreds of thousands of masks."""
    objects = record["objects"]
    areas = area([o["rle"] for o in objects]) if objects else []
    return {
        int(o["id"]): Fact(
            int(pixels),
            float(o["score"]),
            trust(Signals.from_dict(o["signals"]), float(o["score"])) if "signals" in o else None,
        )
        for o, pixels in zip(objects, areas, strict=True)
    }


def _named(line: bytes, names: Mapping[int, str]) -> bytes:
    record = json.loads(line)
    for item in record["objects"]:
        item["label"] = names.get(item["id"]) or None
    return _line(record)


def _numbered(line: bytes, frame: int) -> bytes:
    return _line({**json.loads(line), "frame": frame})


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, separators=(",", ":")) + "\n").encode()
