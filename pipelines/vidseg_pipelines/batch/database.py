"""One SQLite file that many processes read and write: connections, transactions and errors."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import psutil

from vidseg.errors import InputError, OutputError, VidsegError

_BUSY_S = 120.0
"""How long a statement waits for another process."""
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "afp", "webdav", "fuse.", "9p")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """The SQLite file ``path``. Threads and forked processes may share an object of this class.

    On a local disk it keeps a write-ahead log, so that readers and a writer do not wait for each other. That log is
    shared memory, which machines do not have in common: on a network file system SQLite locks the file instead.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        self._lock = threading.RLock()
        self._open: dict[int, sqlite3.Connection] = {}  # a connection must not be used, nor closed, behind a fork

    def create(self, schema: str) -> None:
        """Make the tables that are not there yet. One process at a time: SQLite does not wait to begin its log.

        Raises:
            OutputError: the file cannot be written. InputError: it is something else.
        """
        with self._lock, self._errors():
            connection = self._connection()
            shared = is_on_network(self.path)
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            empty = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if shared and mode == "wal":
                raise InputError(
                    f"{self.path}: begun on a local disk of another machine, which cannot share it with this one; "
                    "use another --output"
                )
            if empty:
                connection.execute(f"PRAGMA journal_mode={'DELETE' if shared else 'WAL'}")
            connection.executescript(schema)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that change nothing.

        Raises:
            InputError: the file is damaged. OutputError: it cannot be used otherwise.
        """
        with self._lock, self._errors():
            yield self._connection()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it happens, and nobody else writes meanwhile, or nothing of it.

        Raises:
            InputError: the file is damaged. OutputError: it cannot be used otherwise.
        """
        with self._lock, self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        pid = os.getpid()
        if pid not in self._open:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may undo the last jobs, not damage the file
            self._open[pid] = connection
        return self._open[pid]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._clear_error(error) from error

    def _clear_error(self, error: sqlite3.Error) -> VidsegError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return InputError(f"{self.path}: damaged records of a batch; use another --output")
        return OutputError(f"{self.path}: cannot write the records of the batch: {error}")


def is_on_network(path: Path) -> bool:
    """Whether a path lies on a file system that other machines may write to."""
    places = [PurePath(os.path.abspath(path)), *PurePath(os.path.abspath(path)).parents]  # noqa: PTH100
    mounts = {PurePath(m.mountpoint): (m.fstype.lower(), m.opts) for m in psutil.disk_partitions(all=True)}
    kind, options = next((mounts[place] for place in places if place in mounts), ("", ""))
    return kind.startswith(_NETWORK) or "remote" in options.split(",")
