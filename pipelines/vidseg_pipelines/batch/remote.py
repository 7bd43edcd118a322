"""A batch whose outputs are in object storage: its records are in a folder here, and copies of them there."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.errors import InputError, VidsegError
from vidseg.storage import Storage, cache_folder
from vidseg.storage_lease import StorageLease, repeating
from vidseg_pipelines.batch.job_records import FILE, PLACE, RECORDS, SHARDS

EVERY_S = 30.0
"""Seconds between two copies of the records."""
_LOCK = f"{RECORDS}/batch.lock"
_COPY = f"{RECORDS}/{FILE}"
_KNOWN = "known.txt"


class RemoteBatch:
    """The batch at ``url``; ``folder`` is where its records are."""

    def __init__(self, url: str, records: Path | None = None) -> None:
        """``records``: a folder that machines share; None: one of this machine, which only one call uses at a time.

        Raises:
            UsageError: the extra for such URLs is not installed.
        """
        self.url, self.storage = url, Storage(url)
        place = cache_folder() / "work" / hashlib.sha256(f"batch {url}".encode()).hexdigest()[:24]
        self._shared = records is not None
        self.folder = records or place / (url.rpartition("/")[2] or "batch")
        self._seen: object = None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The records are here, and whatever happens to them until the end goes there.

        Raises:
            UsageError: another call, somewhere, has them. OutputError: they cannot be written.
        """
        make_folder(self.folder / RECORDS)
        if self._shared:
            self._prepare()
            yield
            self._send_results()
            return
        with StorageLease(self.storage, _LOCK):
            self._fetch()
            self._prepare()
            try:
                with repeating(self.send_records, EVERY_S, "vidseg-records", (VidsegError, OSError, sqlite3.Error)):
                    yield
            finally:
                self.send_records()
                self._send_results()

    def send_records(self) -> None:
        """Upload a copy of the records, if they have changed."""
        path = self.folder / _COPY
        if self._shared or not path.exists():
            return
        files = (path, path.with_name(f"{FILE}-wal"))
        seen = [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None for file in files]
        if seen == self._seen:
            return
        copy = path.with_name("copy.part")
        with closing(sqlite3.connect(path)) as records, closing(sqlite3.connect(copy)) as whole:
            records.backup(whole, pages=1000)
        self.storage.upload(copy, _COPY)
        copy.unlink()
        self._seen = seen
        self._remember()

    def fetch_copy(self, folder: Path) -> None:
        """The records as they are there, into a folder to read them from.

        Raises:
            InputError: no batch was started there.
        """
        if self.storage.describe(_COPY) is None:
            raise InputError(f"{self.url}: no batch was started there")
        make_folder(folder / RECORDS)
        self.storage.download(_COPY, folder / _COPY)
        (folder / RECORDS / PLACE).write_text(self.url)

    def _fetch(self) -> None:
        """Those here are the newer ones if nobody has replaced the copy since; if somebody has, the copy is."""
        there = self.storage.describe(_COPY)
        known = self.folder / RECORDS / _KNOWN
        if there is None or (known.is_file() and known.read_text() == there.version):
            return
        for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
            (self.folder / RECORDS / name).unlink(missing_ok=True)
        self.fetch_copy(self.folder)
        self._remember()

    def _prepare(self) -> None:
        (self.folder / RECORDS / PLACE).write_text(self.url)
        for name in self.storage.folders():  # names that are taken
            (self.folder / name).mkdir(exist_ok=True)

    def _remember(self) -> None:
        there = self.storage.describe(_COPY)
        (self.folder / RECORDS / _KNOWN).write_text("" if there is None else there.version)

    def _send_results(self) -> None:
        for path in [*self.folder.glob("summary.*"), *(self.folder / SHARDS).glob("*.parquet")]:
            if path.suffix != ".lock":
                self.storage.upload(path, path.relative_to(self.folder).as_posix())
