"""Writing files so that a reader sees the old file, the new one, or none, and never half of one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vidseg.errors import OutputError


def output_error(path: Path, error: OSError) -> OutputError:
    """One clear line for an operating system error while writing ``path``."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission",
        errno.EROFS: "the file system is read-only",
    }
    return OutputError(f"{path}: cannot write: {reasons.get(error.errno or 0, error.strerror or error)}")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write bytes to; it takes the name ``path`` when the block ends without an error.

    Raises:
        OutputError: it cannot be written (disk full, no permission); nothing is left behind.
    """
    part = path.with_name(path.name + ".part")
    try:
        try:
            with part.open("wb") as file:
                yield file
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise error if isinstance(error, OutputError) else output_error(path, error) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    return path
