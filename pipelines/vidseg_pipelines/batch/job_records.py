"""The records of a batch, in ``.batch/batch.sqlite`` of its output folder: jobs, who is at them, and how they ended.

A record is found by its key; nothing but the summary lists all of them. A call of ``vidseg batch`` has a queue of the
jobs that it is to do; calls may share jobs.

    .batch/batch.sqlite         see _SCHEMA
    .batch/errors/KEY.txt       the traceback of an unexpected error
    .batch/outputs              the URL of the outputs, where they are in object storage
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError
from vidseg.options import checked_values, from_mapping
from vidseg.storage import ObjectPath
from vidseg_pipelines.batch.database import Database
from vidseg_pipelines.batch.leases import Owner

RECORDS = ".batch"
FILE = "batch.sqlite"
PLACE = "outputs"
"""File with the URL of the outputs, where they are not beside the records."""
SHARDS = "parquet"
"""Folder of the Parquet files."""
WAITING, RUNNING = "waiting", "running"

PAGE = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings(id INTEGER PRIMARY KEY, config TEXT UNIQUE NOT NULL);  -- that jobs have in common
CREATE TABLE IF NOT EXISTS jobs(
  key TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL,
  base TEXT NOT NULL, input TEXT NOT NULL, digest TEXT NOT NULL,  -- what a request is recognized by
  video INTEGER NOT NULL,  -- its number in files that hold many videos
  settings INTEGER NOT NULL, config TEXT NOT NULL,  -- what differs from the settings
  status TEXT NOT NULL DEFAULT 'waiting', reason TEXT NOT NULL DEFAULT '',
  seconds REAL NOT NULL DEFAULT 0, frames INTEGER NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '',
  attempt INTEGER NOT NULL DEFAULT 0,  -- never goes down, unlike attempts
  deaths INTEGER NOT NULL DEFAULT 0, owner TEXT, total INTEGER, begun REAL, beat REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_digest ON jobs(digest, base);
CREATE INDEX IF NOT EXISTS jobs_by_input ON jobs(input, base);
CREATE INDEX IF NOT EXISTS jobs_running ON jobs(key) WHERE status='running';
CREATE INDEX IF NOT EXISTS jobs_deaths ON jobs(key) WHERE deaths>0;
CREATE TABLE IF NOT EXISTS calls(call TEXT PRIMARY KEY, owner TEXT NOT NULL, message TEXT, code INTEGER);
CREATE TABLE IF NOT EXISTS queue(
  call TEXT NOT NULL, ordinal INTEGER NOT NULL, key TEXT NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,  -- 0: to do, 1: has ended, 2: and the call knows it
  PRIMARY KEY(call, ordinal)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_by_key ON queue(key);
CREATE INDEX IF NOT EXISTS queue_to_do ON queue(call, ordinal) WHERE state=0;
CREATE INDEX IF NOT EXISTS queue_news ON queue(call, ordinal) WHERE state=1;
"""


@dataclass(frozen=True)
class Job:
    """One video: ``config`` without its output, which is the folder ``name`` of the batch."""

    name: str
    config: RunConfig

    @property
    def key(self) -> str:
        """What the job is known by: a digest of input, settings and name."""
        return key_of(self.config.digest(), self.name)


@dataclass(frozen=True)
class Result:
    """How a job ended: "done", "partial" (a damaged video) or "failed"; ``reason`` is one line."""

    status: str
    reason: str = ""
    seconds: float = 0.0
    """Of the last attempt."""
    frames: int = 0
    objects: int = 0
    attempts: int = 1
    worker: str = ""


class JobRecords:
    """Reads and writes the records of the batch in ``folder``.

    ``timeout_s`` is the age of a heartbeat that means death on another machine.
    """

    def __init__(self, folder: Path, timeout_s: float = 60.0) -> None:
        """Name the folder; nothing is read or created yet."""
        self.folder, self.timeout_s = folder, timeout_s
        self.root = folder / RECORDS
        self.database = Database(self.root / FILE)
        self._settings: dict[int, RunConfig] = {}

    @cached_property
    def outputs(self) -> Path | ObjectPath:
        """Where the folders of the videos are."""
        try:
            return ObjectPath((self.root / PLACE).read_text())
        except FileNotFoundError:
            return self.folder

    @property
    def exists(self) -> bool:
        """Whether a batch was begun in the folder."""
        return self.root.is_dir()

    def create(self) -> None:
        """Make the folders and tables.

        Raises:
            UsageError: an earlier version of vidseg began the batch. OutputError: they cannot be made.
        """
        self.check_version()
        make_folder(self.root / "errors")
        self.database.create(_SCHEMA)

    def check_version(self) -> None:
        """Refuse the records of an earlier version (UsageError)."""
        if (self.root / "jobs").is_dir() and not self.database.path.exists():
            raise UsageError(
                f"{self.folder}: a batch of vidseg 0.1, whose records this version cannot read: finish it with that "
                "version, or use another --output"
            )

    def jobs(self, *, call: str = "") -> Iterator[tuple[Job, sqlite3.Row]]:
        """Every job with its record, by name; of ``call`` alone where it is given.

        Raises:
            InputError: a record that is damaged.
        """
        for row in self.rows(call=call):
            yield self._job(row), row

    def rows(self, *, call: str = "") -> Iterator[sqlite3.Row]:
        """The records of :meth:`jobs`, page by page."""
        mine = "AND EXISTS(SELECT 1 FROM queue q WHERE q.key=jobs.key AND q.call=:call)" if call else ""
        last = ""
        while True:
            query = f"SELECT * FROM jobs WHERE name > :last {mine} ORDER BY name LIMIT {PAGE}"
            with self.database.reading() as db:
                page = db.execute(query, {"last": last, "call": call}).fetchall()
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1]["name"]

    def job(self, key: str) -> Job:
        """The job known by ``key``.

        Raises:
            InputError: the record is damaged or missing.
        """
        row = self._row(key)
        if row is None:
            raise InputError(f"{self.database.path}: no job {key}")
        return self._job(row)

    def result(self, key: str) -> Result | None:
        """How a job ended, or None."""
        row = self._row(key)
        if row is None or row["status"] in (WAITING, RUNNING):
            return None
        return Result(**{field.name: row[field.name] for field in dataclasses.fields(Result)})

    def finish(self, key: str, result: Result, attempt: int | None = None) -> None:
        """Record how a job ended; nothing when another than this ``attempt`` is at it."""
        values = asdict(result)
        columns = ", ".join(f"{name}=:{name}" for name in values)
        now = self.now()
        with self.database.writing() as db:
            done = db.execute(
                f"UPDATE jobs SET {columns}, owner=NULL, beat=:now WHERE key=:key"
                + ("" if attempt is None else " AND attempt=:attempt AND status='running'"),
                {**values, "key": key, "attempt": attempt, "now": now},
            )
            if done.rowcount:
                db.execute("UPDATE queue SET state=1 WHERE key=? AND state=0", (key,))

    def forget(self, key: str) -> None:
        """The job is to be done (again); what was attempted before does not count."""
        with self.database.writing() as db:
            db.execute(
                "UPDATE jobs SET status='waiting', reason='', owner=NULL, seconds=0, frames=0, objects=0, attempts=0,"
                " deaths=0, worker='' WHERE key=?",
                (key,),
            )
            db.execute("UPDATE queue SET state=0 WHERE key=?", (key,))

    def save_traceback(self, key: str, text: str) -> Path:
        """Keep the traceback of an unexpected error; returns where."""
        path = self.root / "errors" / f"{key}.txt"
        with atomic_file(path) as file:
            file.write(text.encode(errors="backslashreplace"))
        return path

    def is_live(self, row: sqlite3.Row) -> bool:
        """Is somebody working on the job of a record?"""
        if row["status"] != RUNNING:
            return False
        owner = Owner.read(row["owner"])
        exists = None if owner is None else owner.exists()
        try:
            return self.now() - row["beat"] <= self.timeout_s if exists is None else exists
        except OSError:  # a hiccup of the network file system is no death
            return True

    def now(self) -> float:
        """Time by the clock of the file system, which all workers share."""
        with tempfile.TemporaryFile(dir=self.root) as file:
            return os.fstat(file.fileno()).st_mtime

    def _row(self, key: str) -> sqlite3.Row | None:
        with self.database.reading() as db:
            return db.execute("SELECT * FROM jobs WHERE key=?", (key,)).fetchone()

    def _job(self, row: sqlite3.Row) -> Job:
        where = f"{self.database.path}: job {row['key']}"
        try:
            settings = self._common(row["settings"])
            config = merged(settings, json.loads(row["config"]), where)
        except (UsageError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}: from another version of vidseg ({error}); use another --output") from error
        name = row["name"]
        if Path(name).parts != (name,) or name in ("..", RECORDS):
            raise InputError(f"{where}: {name!r} is not a folder inside the batch's; use another --output")
        return Job(name, dataclasses.replace(config, output=Path(self.outputs / name), video_id=row["video"]))

    def _common(self, number: int) -> RunConfig:
        if number not in self._settings:
            with self.database.reading() as db:
                row = db.execute("SELECT config FROM settings WHERE id=?", (number,)).fetchone()
            data = json.loads("null" if row is None else row[0])
            self._settings[number] = from_mapping(RunConfig, data, where=str(self.database.path))
        return self._settings[number]


def key_of(digest: str, name: str) -> str:
    """The key of the job with this digest of its settings and this name."""
    return hashlib.sha256(f"{digest}\n{name}".encode()).hexdigest()[:20]


def merged(config: RunConfig, values: dict[str, Any], where: str) -> RunConfig:
    """``config`` with some settings replaced; UsageError: unknown, or of another type."""
    return dataclasses.replace(config, **checked_values(RunConfig, values, where=where))


def record_settings(db: sqlite3.Connection, config: RunConfig) -> int:
    """The number of settings that jobs have in common."""
    text = json.dumps(vars(config), default=str, sort_keys=True)
    db.execute("INSERT OR IGNORE INTO settings(config) VALUES(?)", (text,))
    return int(db.execute("SELECT id FROM settings WHERE config=?", (text,)).fetchone()[0])


def differing(config: RunConfig, common: RunConfig) -> str:
    """The settings in which ``config`` differs, as JSON; not what is the job's own."""
    values = {k: v for k, v in vars(config).items() if v != getattr(common, k) and k not in ("output", "video_id")}
    return json.dumps(values, default=str)
