"""The heap of the C library, kept from growing with the length of a video (glibc; elsewhere nothing is done), and
when Python looks for garbage.

Tensors of many sizes that come and go with every frame leave holes in it, and each thread that allocates gets a heap of
its own: the peak of 2,000 frames was 100 MB above that of 200, though no more was in use.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # M_... of malloc.h
_KEPT = 1 << 28
"""Bytes: larger blocks are mapped anew, and more than that at the end of the heap is given back at once."""
TRIM_EVERY = 25
"""Frames after which a heap gives back what is free in it."""


def share_one_heap() -> None:
    """Let all threads that begin from now on allocate from one heap, which keeps what is freed: :func:`keep_blocks`."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_ARENA_MAX, 1)
    keep_blocks()


def keep_blocks() -> None:
    """Let the heap of this process keep large blocks that are freed, for the next image.

    By default glibc maps every block beyond 32 MB anew, and the system clears its pages at every use: a third of the
    time of TinyViT. :func:`trim_heap` gives back what is free.
    """
    libc = _glibc()
    if libc is not None and libc.mallopt(_MMAP_THRESHOLD, _KEPT):  # refused before glibc 2.35
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)  # alone it would fix the threshold of mapping, at 128 kB


def trim_heap() -> None:
    """Give the free pages of the heap back to the system, also those in the middle."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


class FrameHeap:
    """The heap of a process that computes frame after frame: large blocks stay, and no holes for long."""

    def __init__(self) -> None:
        keep_blocks()
        self._frames = 0

    def did(self, frames: int = 1) -> None:
        """That many more frames are done; every :data:`TRIM_EVERY` of them the heap is trimmed."""
        before, self._frames = self._frames, self._frames + frames
        if before // TRIM_EVERY < self._frames // TRIM_EVERY:
            trim_heap()


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection while a program imports its modules: they make many objects and hardly any garbage.

    Later collections leave these objects out. For programs, not for libraries: it concerns the whole process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@cache
def _glibc() -> Any:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
