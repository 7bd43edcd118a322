"""Undo and redo: what frames and document were before and after each step of the user."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

STEPS = 200
"""Steps that can be undone."""

_Place = tuple[int, int] | None


@dataclass
class HistoryStep:
    """One step: ``what`` the page calls it, the document before and after, and the lines that it changed."""

    what: str
    before: str
    after: str = ""
    old: dict[int, _Place] = field(default_factory=dict)
    new: dict[int, _Place] = field(default_factory=dict)


class History:
    """Steps of one session; lines lie in a nameless temporary file, so that long runs cost no memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.done: list[HistoryStep] = []
        self.undone: list[HistoryStep] = []

    def begin(self, what: str, before: str) -> HistoryStep:
        """A new step; what was undone cannot be redone any more."""
        step = HistoryStep(what, before)
        self.undone.clear()
        self.done.append(step)
        del self.done[:-STEPS]
        return step

    def note(self, step: HistoryStep, frame: int, old: bytes | None, new: bytes | None) -> None:
        """Add the line of a frame before (only the first counts) and after."""
        if frame not in step.old:
            step.old[frame] = self._keep(old)
        step.new[frame] = self._keep(new)

    def undo(self, restore: Callable[[str, dict[int, bytes | None]], None]) -> HistoryStep | None:
        """Call ``restore(document, lines)`` with what was before the last step."""
        if not self.done:
            return None
        step = self.done[-1]
        restore(step.before, self._lines(step.old))
        self.undone.append(self.done.pop())
        return step

    def redo(self, restore: Callable[[str, dict[int, bytes | None]], None]) -> HistoryStep | None:
        """Call ``restore(document, lines)`` with what was after the step that was undone last."""
        if not self.undone:
            return None
        step = self.undone[-1]
        restore(step.after, self._lines(step.new))
        self.done.append(self.undone.pop())
        return step

    def close(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()

    def _keep(self, line: bytes | None) -> _Place:
        if line is None:
            return None
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (closed in close)
        start = self._file.seek(0, 2)
        self._file.write(line)
        return start, len(line)

    def _lines(self, places: dict[int, _Place]) -> dict[int, bytes | None]:
        lines: dict[int, bytes | None] = {}
        for frame, place in places.items():
            if place is None or self._file is None:
                lines[frame] = None
            else:
                self._file.seek(place[0])
                lines[frame] = self._file.read(place[1])
        return lines
