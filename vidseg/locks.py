"""One process at a time: advisory locks on files, where the system has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidseg.errors import OutputError, UsageError


@contextmanager
def file_lock(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock of the file ``path``, which is made if needed and stays; the system frees it when a process dies.

    ``busy``: what to tell when another process holds it; empty: wait for that one. Without locks (Windows) nothing is
    held.

    Raises:
        UsageError: ``busy``. OutputError: the file cannot be made.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise UsageError(busy) from None
        yield
    finally:
        os.close(descriptor)
