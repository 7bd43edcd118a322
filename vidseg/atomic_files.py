"""Writing files so that a reader sees the old file, the new one, or none, and never half of one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vidseg.errors import OutputError, output_error
from vidseg.names import is_part, part_of


def clear_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; nobody else may be writing there."""
    for path in [path for path in folder.iterdir() if is_part(path)] if folder.is_dir() else []:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write bytes to; it takes the name ``path`` when the block ends without an error.

    Several processes may write the same ``path``: each writes a file of its own, and the last to end wins.

    Raises:
        OutputError: it cannot be written (disk full, no permission); nothing is left behind.
    """
    part = part_of(path)
    try:
        try:
            with part.open("xb") as file:
                yield file
            part.replace(path)
        except BaseException:
            with suppress(OSError):
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


def move_into(made: Path, folder: Path) -> None:
    """Give a finished file or folder, if there is one, its place in ``folder`` of the same file system.

    A file replaces that of its name; so does every file of a folder, and others that are there stay.

    Raises:
        OutputError: something cannot be moved.
    """
    target = folder / made.name
    try:
        if made.is_dir() and target.is_dir():
            for path in made.iterdir():
                if path.is_dir():
                    move_into(path, target)
                else:
                    path.replace(target / path.name)
        elif made.exists():
            made.replace(target)
    except OSError as error:
        raise output_error(target, error) from error
