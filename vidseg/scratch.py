"""Data that waits on the disk for a moment, in a file without a name."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from vidseg.errors import OutputError, output_error

_LENGTH = struct.Struct("<Q")


class ScratchStack:
    """Strings of bytes on the disk, the last one first out; what is taken out takes no room any more.

    The file has no name: it is gone when it is closed, and when the process ends in whatever way. A context manager.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """An empty one, on the disk of ``folder``; None: where the system keeps temporary files (TMPDIR).

        Raises:
            OutputError: nothing can be written there.
        """
        self._folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._end = 0
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        except OSError as error:
            raise self._failure(error) from error

    def push(self, *parts: bytes | npt.NDArray[Any]) -> None:
        """Add one string, of bytes and contiguous arrays (OutputError: the disk is full or the like)."""
        views = [memoryview(part) if isinstance(part, bytes) else part.data for part in parts]
        length = sum(view.nbytes for view in views)
        try:
            self._file.seek(self._end)
            for view in views:
                self._file.write(view)
            self._file.write(_LENGTH.pack(length))
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error
        self._end += length + _LENGTH.size

    def pop(self) -> npt.NDArray[np.uint8] | None:
        """Take out what was added last, or None where there is nothing (OutputError: it cannot be read)."""
        if not self._end:
            return None
        try:
            self._file.seek(self._end - _LENGTH.size)
            (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            start = self._end - _LENGTH.size - length
            self._file.seek(start)
            data = np.empty(length, np.uint8)
            self._file.readinto(data)  # type: ignore[attr-defined]
            self._file.truncate(start)
        except OSError as error:
            raise self._failure(error) from error
        self._end = start
        return data

    def close(self) -> None:
        """Give the room back."""
        try:
            self._file.close()
        except OSError:  # what did not fit is written once more, and nobody needs it
            self._file.close()

    def __enter__(self) -> Self:
        """The stack itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _failure(self, error: OSError) -> OutputError:
        held = f", with {self._end / 1e6:.0f} MB of temporary data there" if self._end else ""
        return OutputError(f"{output_error(self._folder, error)}{held}")
