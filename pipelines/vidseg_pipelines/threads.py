"""Two bounded hand-overs: a source read ahead in a thread, and sinks written behind in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class Prefetch(Generic[T]):
    """Iterates ``items`` in a thread, at most ``size`` ahead. An error of the source is raised to the consumer.

    ``cancel`` makes ``items`` end early when it waits for something, such as the next frame of a camera.
    """

    def __init__(self, items: Iterable[T], size: int, cancel: Callable[[], None] = lambda: None) -> None:
        self._cancel = cancel
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(items,), name="vidseg-read", daemon=True)
        self._thread.start()

    def _put(self, kind: str, value: T | BaseException | None = None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put((kind, value), timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._put("item", item)
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._put("error", error)
        else:
            self._put("end")

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, value = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._stop.set()
        self._cancel()
        self._thread.join()


class WriteBehind:
    """Runs tasks in order in a thread, at most ``size`` waiting. The first error stops it and reaches the caller."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="vidseg-write", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that nobody waits on a full queue
            try:
                task()
            except BaseException as error:
                self._error = error

    def __call__(self, task: Callable[[], None]) -> None:
        """Queue ``task``; waits while the queue is full (back-pressure)."""
        if self._error is not None:
            raise self._error
        self._queue.put(task)

    def close(self, *, check: bool = True) -> None:
        """Finish all queued tasks; with ``check`` raise the error that stopped them, if any."""
        self._queue.put(None)
        self._thread.join()
        if check and self._error is not None:
            raise self._error
