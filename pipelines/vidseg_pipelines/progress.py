"""Progress on standard error: a bar on a terminal, a plain line now and then elsewhere, or json lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vidseg.names import printable

if TYPE_CHECKING:
    from vidseg.masks.frame_masks import FrameMasks

PLAIN_EVERY_S = 10.0


def write_event(event: str, **fields: Any) -> None:
    """One line of JSON on standard error."""
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stderr.flush()


class RunProgress:
    """Counts frames, or other units. ``total`` may be unknown (None): then the remaining time is not estimated."""

    def __init__(
        self, name: str, total: int | None, *, json_log: bool = False, quiet: bool = False, unit: str = "frames"
    ) -> None:
        self._name, self._total, self._json, self._unit = printable(name), total, json_log, unit
        self._quiet = quiet and not json_log
        self._seen: set[int] = set()
        self._rate = "fps" if unit == "frames" else f"{unit} per second"
        self._started = self._last = time.monotonic()
        self._done = self._told = 0
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if console.is_terminal and not json_log and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=console)
            self._task = self._bar.add_task(escape(self._name), total=total, rate="")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away, or print the last plain line."""
        if self._bar:
            self._bar.stop()
        elif self._done > self._told:
            self._line()

    def take(self, results: Sequence[FrameMasks]) -> None:
        """These frames are done."""
        for masks in results if self._json else ():
            for place, number in enumerate(masks.ids):
                if number not in self._seen:
                    self._seen.add(number)
                    label = masks.labels[place] if masks.labels else None
                    write_event("object", id=int(number), label=label, frame=masks.frame_index)
        self.advance(len(results), len(results[-1].ids) if results else 0)

    def advance(self, frames: int, objects: int) -> None:
        """``frames`` more are done; the last of them shows ``objects`` objects."""
        self._done += frames
        rate = self._done / max(time.monotonic() - self._started, 1e-6)
        if self._bar:
            shown = f"{objects} object{'s' * (objects != 1)}"
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.1f} {self._rate}, {shown}")
        elif time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._line()

    def _line(self) -> None:
        self._last, self._told = time.monotonic(), self._done
        seconds = self._last - self._started
        rate = self._done / max(seconds, 1e-6)
        left = (self._total - self._done) / rate if self._total and rate else None
        if self._json:
            eta_s = None if left is None else round(left, 1)
            write_event("progress", frames=self._done, total=self._total, fps=round(rate, 2), eta_s=eta_s)
        elif not self._quiet:
            total = f"/{self._total}" if self._total else ""
            eta = f", {left:.0f} s left" if left and left >= 1 else ""
            sys.stderr.write(f"{self._name}: {self._done}{total} {self._unit}, {rate:.1f} {self._rate}{eta}\n")
            sys.stderr.flush()
