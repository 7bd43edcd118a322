"""One process at a time: locks on files, which the system frees when their process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vidseg.errors import FolderInUseError, output_error


@contextmanager
def file_lock(path: Path, busy: str = "", *, keep: bool = True) -> Iterator[None]:
    """Hold the lock of the file ``path``, which is made if needed.

    ``busy``: the message when another process holds it; empty: wait for that one. ``keep``: leave the file there.

    Raises:
        FolderInUseError: ``busy``. OutputError: the file cannot be made or locked.
    """
    lock = FileLock(path, timeout=0 if busy else -1, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUseError(busy) from None
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):  # Windows removes it when it is released
                path.unlink()
        lock.release()
