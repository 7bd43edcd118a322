"""Two bounded hand-overs: a source read ahead in a thread, and results written behind in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


@dataclass(frozen=True)
class _End:
    """No more items; ``error`` is why, where it was none of the source's own will."""

    error: BaseException | None = None


class Prefetch(Generic[T]):
    """Iterates ``items`` in a thread, at most ``size`` ahead. An error of the source is raised to the consumer.

    ``cancel`` makes ``items`` end early when it waits for something, such as the next frame of a camera.
    """

    def __init__(self, items: Iterable[T], size: int, cancel: Callable[[], None] = lambda: None) -> None:
        self._cancel = cancel
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(items,), name="vidseg-read", daemon=True)
        self._thread.start()

    def _put(self, item: T | _End) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._put(_End(error))
        else:
            self._put(_End())

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._stop.set()
        self._cancel()
        self._thread.join()


class WriteBehind(Generic[T]):
    """Calls ``write`` with every item, in order, in a thread; at most ``size`` items wait.

    The first error stops it and reaches the caller.
    """

    def __init__(self, write: Callable[[T], None], size: int) -> None:
        self._write = write
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="vidseg-write", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not isinstance(item := self._queue.get(), _End):
            if self._error is not None:
                continue  # keep taking, so that nobody waits on a full queue
            try:
                self._write(item)
            except BaseException as error:
                self._error = error

    def put(self, item: T) -> None:
        """Queue ``item``; waits while the queue is full (back-pressure)."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self, *, check: bool = True) -> None:
        """Write all queued items; with ``check`` raise the error that stopped the writing, if any."""
        self._queue.put(_End())
        self._thread.join()
        if check and self._error is not None:
            raise self._error
