"""Who works on what. A job that is being worked on has an owner in its record, and a heartbeat.

Taking a job counts its attempts up, in one transaction, so that one worker gets it. Another may take it when its owner
is dead: on the same machine when that process no longer exists, on another when the heartbeat is older than the timeout
by the file system's own clock. A worker that was suspended, lost its job meanwhile and wakes up, finds another attempt
in the record at its first heartbeat, and ends.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType

from vidseg.processes import host_name, process_born

PLANNING = "planning"
"""The call of an owner that is no worker: a job is being planned anew."""
_TICK_S = 1.0


@dataclass(frozen=True)
class Owner:
    """A worker: ``call`` is the call of ``vidseg batch`` that started it, ``born`` when its process began."""

    call: str
    number: int
    host: str
    pid: int
    born: str

    @classmethod
    def this_process(cls, call: str, number: int) -> Owner:
        """The worker that this process is."""
        return cls(call, number, host_name(), os.getpid(), process_born(os.getpid()))

    @classmethod
    def read(cls, text: str | None) -> Owner | None:
        """The owner that a record names."""
        try:
            return None if text is None else cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def record(self) -> str:
        """As a text that :meth:`read` understands."""
        return json.dumps(asdict(self))

    def exists(self) -> bool | None:
        """Whether its process lives; None: on another machine, where nobody can tell."""
        return process_born(self.pid) == self.born if self.host == host_name() else None  # not another of the same id

    def __str__(self) -> str:
        """For people."""
        return f"{self.host.partition('/')[0]}:{self.pid}"


class Lease:
    """The right to work on a job, kept alive inside a ``with`` block."""

    def __init__(
        self, heart: Heart, beat: Callable[[], bool], release: Callable[[], None], check: Callable[[], None]
    ) -> None:
        """``beat()`` says whether the job is still ours; ``release()`` gives it back unless it has :attr:`ended`."""
        self._heart, self._beat, self._release, self._check = heart, beat, release, check
        self._last = time.monotonic()
        self.ended = False

    def __enter__(self) -> Lease:
        """Begin to beat."""
        self._heart.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The attempt has ended."""
        self._heart.remove(self)
        if not self.ended:
            with suppress(OSError, ValueError):
                self._release()

    def tick(self, beat_s: float) -> None:
        """Beat if it is time to."""
        self._check()
        if time.monotonic() - self._last < beat_s:
            return
        self._last = time.monotonic()
        with suppress(OSError):  # a hiccup of the file system: the next beat looks again
            if not self._beat():
                # This process slept so long that its job was given away: any further write would damage the files
                # of the new owner.
                os._exit(1)


class Heart:
    """The thread that keeps leases alive. It goes on a while without one: starting it takes longer than a short job."""

    def __init__(self) -> None:
        """No thread yet."""
        self.beat_s = 10.0
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Keep a lease alive."""
        with self._lock:
            self._leases.add(lease)
            if self._thread is None or not self._thread.is_alive():  # as behind a fork
                self._thread = threading.Thread(target=self._run, name="vidseg-lease", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        """Let a lease go; it does not beat any more when this returns."""
        with self._lock:
            self._leases.discard(lease)

    def _run(self) -> None:
        while True:
            time.sleep(min(self.beat_s, _TICK_S))
            with self._lock:
                if not self._leases:
                    self._thread = None
                    return
                for lease in self._leases:
                    lease.tick(self.beat_s)
