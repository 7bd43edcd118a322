"""Who may write into an output folder: one process at a time, and never onto what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.errors import UsageError
from vidseg.locks import file_lock
from vidseg.outputs.layout import LOCK

_FileId = tuple[int, int]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other run, batch and export out of ``folder``, which is made if needed.

    At the end the lock is removed, and so are the folders that were made here and are still empty: who could not start
    leaves nothing behind. A folder that was there before stays.

    Raises:
        FolderInUseError: another process holds it. UsageError: it is a file. OutputError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output {folder} is a file; give a folder")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    busy = f"output folder {folder} is in use by another run: wait for it, or choose another --output"
    try:
        with file_lock(folder / LOCK, busy, keep=False):
            yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def keep_apart(inputs: Iterable[str | Path], outputs: Iterable[Path]) -> None:
    """Refuse to write onto what is read, however the paths are spelled and linked.

    Args:
        inputs: files and folders that are read; the links in a folder count as well; ``-`` is standard input.
        outputs: files and folders that may be replaced or removed.

    Raises:
        UsageError: an input is one of the outputs, or lies in one.
    """
    written = {file_id: path for path in outputs for file_id in _ids_of(path)}
    if not written:
        return
    for given in inputs:
        path = Path(given)
        links = [entry for entry in path.iterdir() if entry.is_symlink()] if path.is_dir() else []
        found = _standard_input() if str(given) == "-" else {i for p in (path, *links) for i in _ids_above(p)}
        if hit := found & written.keys():
            raise UsageError(
                f"{given} is an input and would be overwritten by {written[hit.pop()]}: choose another --output"
            )


def _ids_of(path: Path) -> set[_FileId]:
    """Of a file or folder, and of the link to it where it is one; empty where there is none."""
    found = set()
    for look in (os.stat, os.lstat):
        with suppress(OSError):
            status = look(path)
            found.add((status.st_dev, status.st_ino))
    return found


def _ids_above(path: Path) -> set[_FileId]:
    """Of a path and all folders that it lies in: both where it stands and where its links lead."""
    places = (path.parent.resolve() / path.name, path.resolve())
    return {file_id for place in places for part in (place, *place.parents) for file_id in _ids_of(part)}


def _standard_input() -> set[_FileId]:
    with suppress(OSError):
        status = os.fstat(0)
        return {(status.st_dev, status.st_ino)}
    return set()
