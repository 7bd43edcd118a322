"""Undo and redo: what frames and document were before each step of the user, kept in the folder of the run.

A file per step holds what it replaced: its name, the document, and the line of every frame that it changed. Undoing one
writes the same of the present beside it, for redo, before it restores anything. Files are only appended to, so that a
kill loses no step; they count as long as the journal is the one that they belong to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from zlib import crc32

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import output_error
from vidseg.outputs.layout import HISTORY, JOURNAL

STEPS = 200
"""Steps that can be undone."""
HISTORY_BYTES = 1 << 29
"""Bytes of all steps together; the last one stays whatever its size."""

Line = bytes | None
Lines = Iterable[tuple[int, Line]]
Restore = Callable[[str, Lines], None]

_UNDO, _REDO = ".undo.jsonl", ".redo.jsonl"
_MARK = "journal.json"
_COMPARED = 4096  # bytes at the end of the journal


@dataclass
class HistoryStep:
    """One step: ``what`` the page calls it, and the file of what it replaced."""

    what: str
    path: Path
    frames: set[int] = field(default_factory=set)
    """Frames noted by this process."""
    file: IO[bytes] | None = None

    @property
    def number(self) -> int:
        """Its place among the steps."""
        return int(self.path.name.partition(".")[0])

    def read(self) -> tuple[str, Iterator[tuple[int, Line]]]:
        """The document and the lines that it replaced."""
        with self.path.open("rb") as file:
            return str(json.loads(file.readline())["document"]), self._lines(file.tell())

    def close(self) -> None:
        """Nothing more is noted for now."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _lines(self, start: int) -> Iterator[tuple[int, Line]]:
        with self.path.open("rb") as file:
            file.seek(start)
            for text in file:
                if not text.endswith(b"\n"):
                    return  # a kill cut it off, before the frame was changed
                frame, _, line = text.partition(b"\t")
                yield int(frame), (line if line != b"\n" else None)


class History:
    """The steps of a run folder, which this process holds."""

    def __init__(self, folder: Path) -> None:
        """Take up the steps that are there, if the journal is as the page left it."""
        self._folder, self._journal = folder / HISTORY, folder / JOURNAL
        self.done: list[HistoryStep] = []
        self.undone: list[HistoryStep] = []
        if self._folder.is_dir() and not self._continues():
            shutil.rmtree(self._folder, ignore_errors=True)
        found = {suffix: self._found(suffix) for suffix in (_UNDO, _REDO)}
        self.done = found[_UNDO]
        numbers = {step.number for step in self.done}  # in both: a kill came while it was undone
        self.undone = [step for step in reversed(found[_REDO]) if step.number not in numbers]

    def begin(self, what: str, document: str) -> HistoryStep:
        """A new step; what was undone cannot be redone any more.

        Raises:
            OutputError: it cannot be written.
        """
        make_folder(self._folder)
        if not (self._folder / _MARK).exists():
            self.mark()
        for step in self.undone:
            step.path.unlink(missing_ok=True)
        self.undone.clear()
        number = self.done[-1].number + 1 if self.done else 1
        if self.done:
            self.done[-1].close()
        step = HistoryStep(what, self._folder / f"{number}{_UNDO}")
        self._write(step, _head(what, document))
        self.done.append(step)
        self._forget()
        return step

    def note(self, step: HistoryStep, frame: int, line: Line) -> None:
        """Add the line of a frame before the step changes it; only the first counts.

        Raises:
            OutputError: it cannot be written.
        """
        if frame not in step.frames:
            self._write(step, _row(frame, line))
            step.frames.add(frame)

    def drop(self, step: HistoryStep) -> None:
        """Forget a step that failed."""
        self.done.remove(step)
        step.close()
        step.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all steps."""
        for step in [*self.done, *self.undone]:
            step.close()
            step.path.unlink(missing_ok=True)
        self.done.clear()
        self.undone.clear()

    def undo(self, document: str, line_of: Callable[[int], Line], restore: Restore) -> HistoryStep | None:
        """Call ``restore(document, lines)`` with what was before the last step; the first two say what is now."""
        return self._turn(self.done, self.undone, _REDO, document, line_of, restore)

    def redo(self, document: str, line_of: Callable[[int], Line], restore: Restore) -> HistoryStep | None:
        """Call ``restore(document, lines)`` with what was after the step that was undone last."""
        return self._turn(self.undone, self.done, _UNDO, document, line_of, restore)

    def mark(self) -> None:
        """Remember the journal as it is: the steps belong to this one.

        Raises:
            OutputError: it cannot be written.
        """
        if self._folder.is_dir():
            self._forget()
            size = self._journal.stat().st_size if self._journal.exists() else 0
            with atomic_file(self._folder / _MARK) as file:
                file.write(json.dumps({"size": size, "crc": self._crc(size)}).encode())

    def close(self) -> None:
        """Close the files; a folder without steps goes."""
        for step in self.done:
            step.close()
        if not self.done and not self.undone:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _turn(
        self,
        steps: list[HistoryStep],
        others: list[HistoryStep],
        suffix: str,
        document: str,
        line_of: Callable[[int], Line],
        restore: Restore,
    ) -> HistoryStep | None:
        if not steps:
            return None
        step = steps[-1]
        step.close()
        before, lines = step.read()
        back = HistoryStep(step.what, self._folder / f"{step.number}{suffix}")
        with atomic_file(back.path) as file:
            file.write(_head(step.what, document))
            for frame, _ in lines:
                file.write(_row(frame, line_of(frame)))
        restore(before, step.read()[1])
        step.path.unlink()
        steps.pop()
        others.append(back)
        return step

    def _write(self, step: HistoryStep, text: bytes) -> None:
        try:
            if step.file is None:
                step.file = step.path.open("ab", buffering=0)
            start = step.file.tell()
            try:
                rest = memoryview(text)
                while rest:
                    rest = rest[step.file.write(rest) :]
            except OSError:
                step.file.truncate(start)
                raise
        except OSError as error:
            raise output_error(step.path, error) from error

    def _forget(self) -> None:
        """Drop the oldest steps beyond the limits."""
        sizes = [step.path.stat().st_size for step in self.done]
        while len(self.done) > 1 and (len(self.done) > STEPS or sum(sizes) > HISTORY_BYTES):
            self.done.pop(0).path.unlink(missing_ok=True)
            sizes.pop(0)

    def _found(self, suffix: str) -> list[HistoryStep]:
        steps = []
        for path in self._folder.glob(f"*{suffix}") if self._folder.is_dir() else ():
            try:
                with path.open("rb") as file:
                    step = HistoryStep(str(json.loads(file.readline())["what"]), path)
                steps.append((step.number, step))
            except (OSError, ValueError, LookupError, TypeError):
                path.unlink(missing_ok=True)
        return [step for _, step in sorted(steps, key=lambda pair: pair[0])]

    def _continues(self) -> bool:
        """Is the journal the one that was marked, or that one and more behind it?"""
        try:
            mark = json.loads((self._folder / _MARK).read_bytes())
            size = int(mark["size"])
            exists = size == 0 or self._journal.stat().st_size >= size
            return exists and self._crc(size) == mark["crc"]
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _crc(self, size: int) -> int:
        if size == 0:
            return 0
        with self._journal.open("rb") as file:
            file.seek(max(0, size - _COMPARED))
            return crc32(file.read(min(size, _COMPARED)))


def _head(what: str, document: str) -> bytes:
    return json.dumps({"what": what, "document": document}).encode() + b"\n"


def _row(frame: int, line: Line) -> bytes:
    return b"%d\t%s\n" % (frame, (line or b"").rstrip(b"\n"))
