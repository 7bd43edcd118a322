"""From requests to jobs: safe, unique, stable names of output folders; what is done already is left alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.config import RunConfig
from vidseg.errors import UsageError, output_error
from vidseg.locks import file_lock
from vidseg.names import safe_name
from vidseg.outputs.folder import keep_apart
from vidseg_pipelines.batch.inputs import Request
from vidseg_pipelines.batch.job_records import Job, differing, key_of, merged, record_settings
from vidseg_pipelines.batch.leases import PLANNING, Owner
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.manifest import differences
from vidseg_pipelines.remote_folder import RemoteFolder, folder_at
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.run_inputs import files_of, input_files

_PAGE = 500
"""Jobs that are recorded in one transaction, so that workers of other calls do not wait long."""
_REQUESTS = """
CREATE TEMP TABLE requests(
  ordinal INTEGER PRIMARY KEY, digest TEXT, base TEXT, input TEXT, config TEXT,
  key TEXT, old TEXT,  -- the job that it is, the one that it replaces
  UNIQUE(digest, base)
);
CREATE TEMP TABLE claimed(key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FREE = "AND base=? AND NOT EXISTS(SELECT 1 FROM claimed c WHERE c.key=jobs.key) ORDER BY length(name), name LIMIT 1"


def plan_jobs(
    store: BatchRecords, requests: Iterable[Request], *, overwrite: bool = False, retry_failed: bool = False
) -> str:
    """Record the jobs of a call of ``vidseg batch`` in ``store``, with a folder for each; returns the call.

    A request that was made before gets the same folder again; a new one gets a name that no folder and no job has. The
    same request twice is one job. ``overwrite`` makes all of them again, ``retry_failed`` those that failed.
    Other calls may plan at the same time. ``requests`` are read as a stream: memory does not grow with them.

    Raises:
        UsageError: without ``overwrite``, results that were made with other settings or of another input; results that
            are just being made and are to be made again; an input among the results that ``overwrite`` replaces.
        OutputError: the folder cannot be written.
    """
    make_folder(store.root)
    with file_lock(store.root / "plan.lock"):  # calls that begin at the same moment plan one after the other
        store.create()
        return _Plan(store, overwrite, retry_failed).call(requests)


class _Plan:
    def __init__(self, store: BatchRecords, overwrite: bool, retry_failed: bool) -> None:
        self.store, self.overwrite, self.retry_failed = store, overwrite, retry_failed
        self.last_number: dict[str, int] = {}
        """The last number of names that were taken."""
        self.last_video = 0

    def call(self, requests: Iterable[Request]) -> str:
        with self.store.database.reading() as db:  # its temporary tables go with the connection, or here
            db.executescript("DROP TABLE IF EXISTS temp.requests; DROP TABLE IF EXISTS temp.claimed;" + _REQUESTS)
            try:
                self._read(db, requests)
                self._find(db)
                self._check_inputs(db)
                return self._record(db)
            finally:
                db.executescript("DROP TABLE temp.requests; DROP TABLE temp.claimed;")

    def _read(self, db: sqlite3.Connection, requests: Iterable[Request]) -> None:
        """All requests, in their order, each once; in a table, because there may be millions."""
        self.common = RunConfig()
        db.execute("BEGIN")
        for number, request in enumerate(requests):
            if number == 0:
                self.common = dataclasses.replace(request.config, output=None, input="")
            row = request.config.digest(), _base(request), request.config.input, differing(request.config, self.common)
            db.execute("INSERT OR IGNORE INTO requests(digest, base, input, config) VALUES(?, ?, ?, ?)", row)
        db.execute("COMMIT")

    def _find(self, db: sqlite3.Connection) -> None:
        """First all jobs that are known, so that no other request takes their folder; then those to be replaced."""
        if not db.execute("SELECT 1 FROM main.jobs LIMIT 1").fetchone():
            return
        for column, known in (("digest", "key"), ("input", "old")):
            rows = db.execute(f"SELECT ordinal, base, {column} FROM requests WHERE key IS NULL").fetchall()
            db.execute("BEGIN")
            for ordinal, base, value in rows:
                job = db.execute(f"SELECT key FROM main.jobs WHERE {column}=? {_FREE}", (value, base)).fetchone()
                if job is not None:
                    db.execute("INSERT INTO claimed VALUES(?)", (job["key"],))
                    db.execute(f"UPDATE requests SET {known}=? WHERE ordinal=?", (job["key"], ordinal))
            db.execute("COMMIT")

    def _check_inputs(self, db: sqlite3.Connection) -> None:
        """No input may lie among the results that are going to be replaced."""
        which = "old IS NOT NULL" + (" OR key IS NOT NULL" if self.overwrite else "")
        keys = [row[0] for row in db.execute(f"SELECT coalesce(key, old) FROM requests WHERE {which}")]
        cleared = (self.store.job(key) for key in keys)
        keep_apart(
            (file for page in _pages(db) for row in page for file in input_files(self._config(row))),
            (file for job in cleared for file in self._folder(job.name).outputs(job.config.saves)),
        )

    def _record(self, db: sqlite3.Connection) -> str:
        """The jobs and the queue of the call."""
        call = uuid.uuid4().hex[:12]
        self.store.begin_call(call)
        try:
            self._fill(db, call)
        except BaseException:
            self.store.end_call(call)
            raise
        return call

    def _fill(self, db: sqlite3.Connection, call: str) -> None:
        self.last_video = db.execute("SELECT coalesce(max(video), 0) FROM main.jobs").fetchone()[0]
        with self.store.database.writing():
            settings = record_settings(db, self.common)
        for page in _pages(db):  # the known first: what they refuse is refused before anything is made
            for row in page:
                if row["key"] is not None:
                    self._reuse(row["key"])
        for page in _pages(db):
            replaced = [self._replaced(row) if row["old"] else None for row in page]
            with self.store.database.writing():
                for row, old in zip(page, replaced, strict=True):
                    key = row["key"] or self._add(db, row, settings, old)
                    db.execute(
                        "INSERT INTO queue(call, ordinal, key, state) SELECT ?, ?, key,"
                        " CASE WHEN status IN ('waiting', 'running') THEN 0 ELSE 2 END FROM jobs WHERE key=?",
                        (call, row["ordinal"] - 1, key),
                    )

    def _add(self, db: sqlite3.Connection, row: sqlite3.Row, settings: int, old: Job | None) -> str:
        """Record a new job, in the place of the ``old`` one, if any; returns its key."""
        name = old.name if old else self._new_folder(db, row["base"])
        self.last_video = max(self.last_video + 1, self.common.video_id)
        video = old.config.video_id if old else self.last_video
        key = key_of(row["digest"], name)
        db.execute(
            "INSERT INTO jobs(key, name, base, input, digest, video, settings, config) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (key, name, row["base"], row["input"], row["digest"], video, settings, row["config"]),
        )
        return key

    def _reuse(self, key: str) -> None:
        """The same job again: forget its result if it is to be made again."""
        result = self.store.result(key)
        if self.overwrite:
            self._reset(self.store.job(key), clear=True)
        elif result is not None and result.status == "failed":
            if self.retry_failed:
                self._reset(self.store.job(key))
        elif result is not None:
            job = self.store.job(key)
            folder = self._folder(job.name)
            manifest = folder.read_manifest()
            if manifest is None:
                self._reset(job)
                return
            now = files_of(job.config)
            # Files that are gone are no difference: what is done is done.
            then = {part: {name: manifest[part].get(name) for name in now[part]} for part in now}
            if found := differences(then, now):
                what = f"was made of another file of that name ({found})"
                raise UsageError(f"{folder.path} {what}: use --overwrite or another --output")

    def _replaced(self, row: sqlite3.Row) -> Job:
        """Forget the job of the same input with other settings, and return it."""
        old = self.store.job(row["old"])
        folder, config = self._folder(old.name), self._config(row)
        if not self.overwrite and (self.store.result(old.key) or folder.read_manifest()):
            found = differences({"config": old.config.content()}, {"config": config.content()})
            raise UsageError(
                f"{folder.path} was made with other settings ({found}): use --overwrite or another --output"
            )
        self._reset(old, clear=True)
        with self.store.database.writing() as db:
            db.execute("DELETE FROM jobs WHERE key=?", (old.key,))
            db.execute("DELETE FROM queue WHERE key=?", (old.key,))
        return old

    def _reset(self, job: Job, *, clear: bool = False) -> None:
        """Forget the result of a job and its earlier attempts, and ``clear`` its folder; no worker begins meanwhile."""
        folder = self._folder(job.name)
        taken = self.store.take_job(job.key, Owner.this_process(PLANNING, 0))
        if taken is None:
            raise UsageError(f"{folder.path} is being made by another vidseg batch: stop that first")
        with self.store.lease(taken), folder.claimed() if clear else nullcontext():
            if clear:
                folder.clear()
            self.store.forget(job.key)

    def _folder(self, name: str) -> RunFolder | RemoteFolder:
        return folder_at(self.store.outputs / name)

    def _config(self, row: sqlite3.Row) -> RunConfig:
        return merged(self.common, json.loads(row["config"]), "batch")

    def _new_folder(self, db: sqlite3.Connection, base: str) -> str:
        """Create ``base`` or ``base-2``, ``base-3``...

        Creating it is what makes the name ours. The folder of a job that failed may be gone; its name is not free.
        """
        for number in itertools.count(self.last_number.get(base, 0) + 1):
            name = base if number == 1 else f"{base}-{number}"
            if db.execute("SELECT 1 FROM jobs WHERE name=?", (name,)).fetchone():
                self.last_number[base] = number  # many videos may have one name
                continue
            try:
                (self.store.folder / name).mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise output_error(self.store.folder / name, error) from error
            if number > 1:
                self.last_number[base] = number
            return name
        raise AssertionError


def _pages(db: sqlite3.Connection) -> Iterator[list[sqlite3.Row]]:
    last = 0
    while page := db.execute(f"SELECT * FROM requests WHERE ordinal > ? LIMIT {_PAGE}", (last,)).fetchall():
        last = page[-1]["ordinal"]
        yield page


def _base(request: Request) -> str:
    path = Path(request.config.input)
    return safe_name(request.name or (path.name if path.is_dir() else path.stem))
