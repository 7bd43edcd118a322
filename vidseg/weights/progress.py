"""A progress bar for downloads, shown on standard error when that is a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vidseg.names import printable


class DownloadBar:
    """Called with (bytes there, bytes in all or None); appears with the first call and ends with the last byte."""

    def __init__(self, label: str) -> None:
        """``label``: what is downloaded."""
        self._label = escape(printable(label))
        self._bar: Progress | None = None

    def __call__(self, have: int, total: int | None) -> None:
        """Show how far it is."""
        if self._bar is None:
            console = Console(file=sys.stderr)
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
            self._bar.add_task(self._label, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=have, total=total)
        if total is not None and have >= total:
            self._bar.stop()
