"""A limit on the time that FFmpeg may take: no call hangs for longer, however damaged or silent an input is.

FFmpeg has a time limit of its own for reads from the network, but not inside demuxers, decoders and the operating
system. So everything that touches an input runs in one thread of its own, and who wants something from it waits only so
long. A thread cannot be stopped from outside: one that is stuck is left behind, with all that it uses, and ends by
itself when the call that holds it returns, or with the process.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from vidseg.errors import InputError

READ_TIMEOUT_S = 30.0
"""Default limit, in seconds."""

_CLOSE_S = 2.0

T = TypeVar("T")


class StoppedError(Exception):
    """The wait was ended by :meth:`Watchdog.stop`."""


class TimeLimitError(InputError):
    """A call took longer than the limit."""


class Watchdog:
    """Runs tasks one after the other in a thread, each for at most ``limit_s`` seconds."""

    def __init__(self, limit_s: float = READ_TIMEOUT_S) -> None:
        self.limit_s = limit_s
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._over = self._closed = False
        self._thread = threading.Thread(
            target=_work, args=(self._tasks, self._results), name="vidseg-decode", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._tasks.put, None)  # of a source that nobody closed

    def call(self, task: Callable[[], T], what: str) -> T:
        """The result of ``task``, or the error that it raises.

        Raises:
            TimeLimitError: ``what`` takes longer than the limit; there are no further calls.
            StoppedError: after :meth:`stop`.
        """
        if self._over:
            raise StoppedError
        self._tasks.put(task)
        try:
            value, error = self._results.get(timeout=self.limit_s)
        except queue.Empty:
            self._over = True
            raise TimeLimitError(f"{what} takes longer than {self.limit_s:g} s (--read-timeout is the limit)") from None
        except BaseException:  # Ctrl-C: the result of this task must not be taken for that of the next
            self._over = True
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        result: T = value
        return result

    def check_unread(self, what: str, begun: bool = False) -> None:
        """Refuse to read an input that was read, or closed, or that somebody has ``begun`` to read (InputError)."""
        if self._closed or begun:
            raise InputError(f"{what}: a source is read once, before it is closed; open it again")

    def stop(self) -> None:
        """End a waiting call now, and all later ones. May be called from any thread and from a signal handler."""
        self._over = True
        self._results.put((None, StoppedError()))

    def close(self, last: Callable[[], None]) -> None:
        """Let the thread run ``last`` when it is free, and end. Waits for that, but not for a thread that is stuck."""
        if self._closed:
            return
        self._closed = self._over = True
        self._tasks.put(last)
        self._tasks.put(None)
        self._thread.join(_CLOSE_S)


def _work(
    tasks: queue.SimpleQueue[Callable[[], Any] | None], results: queue.SimpleQueue[tuple[Any, BaseException | None]]
) -> None:
    while True:
        task = tasks.get()
        if task is None:
            return
        try:
            results.put((task(), None))
        except BaseException as error:
            results.put((None, error))
        del task  # while it waits, this thread must not keep a source alive
