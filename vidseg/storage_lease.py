"""One process at a time below a URL: an object that only one can create, and that says who it is."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from vidseg.errors import FolderInUseError, OutputError, VidsegError
from vidseg.processes import host_name, process_born
from vidseg.storage import Storage

STALE_S = 60.0
"""Age of a lease whose holder, on another machine, counts as dead."""
_BEAT_S = 15.0


@contextmanager
def repeating(
    work: Callable[[], None], every_s: float, name: str, passing: tuple[type[Exception], ...] = (VidsegError,)
) -> Iterator[None]:
    """Do ``work`` every so many seconds in a thread, until the block ends; after an error of ``passing`` again.

    Such an error is the network's, which may be away for a while.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            with suppress(*passing):
                work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class StorageLease:
    """The object ``name`` of a storage, held inside a ``with`` block and renewed by a thread.

    Who finds the lease of a process of this machine that has died, or one that was not renewed for :data:`STALE_S` by
    the clock of the storage, takes it over. Its holder, if it lives after all, notices before it writes again.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        """Not held yet."""
        self._storage, self._name = storage, name
        self._token = uuid.uuid4().hex
        self._record = json.dumps(
            {"host": host_name(), "pid": os.getpid(), "born": process_born(os.getpid()), "token": self._token}
        ).encode()

    def __enter__(self) -> StorageLease:
        """Take it.

        Raises:
            FolderInUseError: another process holds it. OutputError: it cannot be written.
        """
        while not self._storage.create(self._name, self._record):
            if self._is_live():
                raise FolderInUseError(
                    f"output folder {self._storage.url} is in use by another run: wait for it (after a kill on another "
                    f"machine {STALE_S:.0f} s), or choose another --output"
                )
            self._storage.delete([self._name])
        self._renewing = repeating(self._renew, _BEAT_S, "vidseg-storage-lease")
        self._renewing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._renewing.__exit__(None, None, None)
        with suppress(VidsegError):
            if self._storage.read(self._name) == self._record:
                self._storage.delete([self._name])

    def check(self) -> None:
        """Raise an OutputError if another process has taken it over: it slept, or the network was away, for long."""
        if self._storage.read(self._name) != self._record:
            raise OutputError(f"{self._storage.url}: another run has taken over this folder")

    def _renew(self) -> None:
        self.check()
        self._storage.put(self._name, self._record)

    def _is_live(self) -> bool:
        found, known = self._storage.read(self._name), self._storage.describe(self._name)
        if found is None or known is None:
            return False
        try:
            holder = json.loads(found)
            if holder["host"] == host_name():
                return bool(process_born(holder["pid"]) == holder["born"])
        except (ValueError, LookupError, TypeError):
            pass  # not ours, or of another version: by its age
        probe = f"{self._name}.{self._token}"
        self._storage.put(probe, b"")
        now = self._storage.describe(probe)
        self._storage.delete([probe])
        if now is None or now.modified is None or known.modified is None:
            return True
        return now.modified - known.modified <= STALE_S
