"""Who does which job of a batch: leases, and the queues of calls of ``vidseg batch``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidseg_pipelines.batch.job_records import PAGE, RUNNING, WAITING, JobRecords
from vidseg_pipelines.batch.leases import Heart, Lease, Owner

_BEATS_PER_TIMEOUT = 6
_TO_DO = "queue q INDEXED BY queue_to_do CROSS JOIN jobs j ON j.key=q.key"
"""Left alone, SQLite walks the whole queue of a call instead of the part that has not ended."""
_NEXT = f"SELECT j.key, q.ordinal FROM {_TO_DO} WHERE q.call=? AND q.ordinal > ? AND q.state=0 AND j.status='waiting'"
_FIRST = "ORDER BY q.ordinal LIMIT 1"


@dataclass(frozen=True)
class Taken:
    """A job that was taken: the how-manieth attempt in all, those since it was planned, and workers that died at it."""

    key: str
    attempt: int
    attempts: int
    deaths: int
    status: str
    """What it is when it is given back."""


class BatchRecords(JobRecords):
    """The records of the batch in ``folder``, and who works on what."""

    def __init__(self, folder: Path, timeout_s: float = 60.0) -> None:
        """Name the folder; ``timeout_s`` is the age of a heartbeat that means death on another machine."""
        super().__init__(folder, timeout_s)
        self._heart = Heart()
        self._walks: dict[tuple[str, tuple[int, int]], int | None] = {}  # by call and shard: the last job; None: over

    def take(self, call: str, owner: Owner, shard: tuple[int, int] = (0, 1)) -> Taken | None:
        """The next job of a call that nobody is at, now in the hands of ``owner``; None: there is none.

        ``shard`` (i, n): the jobs i, i + n, i + 2 n, ... come first, each looked at once, then all others.
        """
        now = self.now()
        with self.database.writing() as db:
            row = self._next_of(db, call, shard) or db.execute(f"{_NEXT} {_FIRST}", (call, -1)).fetchone()
            if row is not None:
                return _take(db, row["key"], owner, now)
        return self.take(call, owner) if self.bury(call) else None

    def _next_of(self, db: sqlite3.Connection, call: str, shard: tuple[int, int]) -> sqlite3.Row | None:
        """The next job of a shard. Its walk goes on behind the one before: no worker looks through those of others."""
        number, shards = shard
        behind = self._walks.get((call, shard), -1) if shards > 1 else None
        if behind is None:
            return None
        row: sqlite3.Row | None = db.execute(
            f"{_NEXT} AND q.ordinal % ? = ? {_FIRST}", (call, behind, shards, number)
        ).fetchone()
        self._walks[call, shard] = None if row is None else row["ordinal"]
        return row

    def take_job(self, key: str, owner: Owner) -> Taken | None:
        """A job that nobody is at, whether it has ended or not; None: somebody is."""
        now = self.now()
        with self.database.writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE key=?", (key,)).fetchone()
            return None if row is None or self.is_live(row) else _take(db, key, owner, now)

    def lease(
        self, taken: Taken, progress: Callable[[], tuple[int, int | None]] = lambda: (0, None),
        check: Callable[[], None] = lambda: None,
    ) -> Lease:  # fmt: skip
        """Keeps a job that was taken; ``progress()`` gives the frames done in this attempt, and how many there are."""

        def beat() -> bool:
            now, (frames, total) = self.now(), progress()
            with self.database.writing() as db:
                return bool(
                    db.execute(
                        "UPDATE jobs SET beat=?, frames=?, total=? WHERE key=? AND attempt=? AND status='running'",
                        (now, frames, total, taken.key, taken.attempt),
                    ).rowcount
                )

        self._heart.beat_s = self.timeout_s / _BEATS_PER_TIMEOUT
        return Lease(self._heart, beat, lambda: self.release(taken), check)

    def release(self, taken: Taken) -> None:
        """Give a job back that has not ended."""
        with self.database.writing() as db:
            db.execute(
                "UPDATE jobs SET status=?, owner=NULL WHERE key=? AND attempt=? AND status='running'",
                (taken.status, taken.key, taken.attempt),
            )

    def bury(self, call: str) -> int:
        """Give back the jobs of a call whose owners have died; returns how many."""
        with self.database.reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE status='running'"
                " AND EXISTS(SELECT 1 FROM queue q WHERE q.key=jobs.key AND q.call=?)",
                (call,),
            ).fetchall()
        dead = [row for row in rows if not self.is_live(row)]
        buried = 0
        for row in dead:
            with self.database.writing() as db:
                buried += db.execute(
                    "UPDATE jobs SET status='waiting', deaths=deaths+1, owner=NULL"
                    " WHERE key=? AND attempt=? AND status='running'",
                    (row["key"], row["attempt"]),
                ).rowcount
        return buried

    def begin_call(self, call: str) -> None:
        """Record a call of ``vidseg batch``, and forget those of this machine that were killed."""
        with self.database.writing() as db:
            for row in db.execute("SELECT * FROM calls").fetchall():
                owner = Owner.read(row["owner"])
                if owner is None or owner.exists() is False:
                    _end_call(db, row["call"])
            db.execute("INSERT INTO calls(call, owner) VALUES(?, ?)", (call, Owner.this_process(call, 0).record()))

    def end_call(self, call: str) -> None:
        """Forget a call and its queue."""
        with self.database.writing() as db:
            _end_call(db, call)

    def news(self, call: str) -> list[sqlite3.Row]:
        """The records of the jobs of a call that have ended since it last asked, at most a page of them."""
        query = (
            "SELECT q.ordinal, j.* FROM queue q INDEXED BY queue_news CROSS JOIN jobs j ON j.key=q.key"
            f" WHERE q.call=? AND q.state=1 ORDER BY q.ordinal LIMIT {PAGE}"
        )
        with self.database.reading() as db:
            if not db.execute(query, (call,)).fetchone():
                return []
        with self.database.writing() as db:
            rows = db.execute(query, (call,)).fetchall()
            db.executemany("UPDATE queue SET state=2 WHERE call=? AND ordinal=?", [(call, r["ordinal"]) for r in rows])
        return rows

    def standing(self, call: str, limit: int) -> tuple[int, int, int]:
        """Of the jobs of a call: those that wait (counted up to ``limit``), that its own workers are at, and deaths."""
        with self.database.reading() as db:
            waiting = db.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM {_TO_DO} WHERE q.call=?"
                " AND q.state=0 AND j.status='waiting' LIMIT ?)",
                (call, limit),
            ).fetchone()[0]
            owners = db.execute("SELECT owner FROM jobs WHERE status='running'").fetchall()
            deaths = db.execute(
                "SELECT total(deaths) FROM jobs WHERE deaths>0"
                " AND EXISTS(SELECT 1 FROM queue q WHERE q.key=jobs.key AND q.call=?)",
                (call,),
            ).fetchone()[0]
        ours = sum(owner is not None and owner.call == call for owner in (Owner.read(row[0]) for row in owners))
        return waiting, ours, int(deaths)

    def counts(self, call: str) -> tuple[int, int, int]:
        """How many jobs a call has, how many of them have ended, and how many of these have failed."""
        with self.database.reading() as db:
            query = (
                "SELECT count(*), total(q.state<>0), total(q.state<>0 AND j.status='failed')"
                " FROM queue q JOIN jobs j ON j.key=q.key WHERE q.call=?"
            )
            row = db.execute(query, (call,)).fetchone()
        return row[0], int(row[1]), int(row[2])

    def states(self) -> dict[str, tuple[int, int, float]]:
        """By status: how many jobs, their frames, and the seconds that these took."""
        with self.database.reading() as db:
            query = "SELECT status, count(*), total(frames), total(seconds) FROM jobs GROUP BY status"
            return {row[0]: (row[1], int(row[2]), row[3]) for row in db.execute(query)}

    def oldest_heartbeat(self) -> float:
        """Age in seconds of the oldest heartbeat of a job that runs; 0 when none does."""
        with self.database.reading() as db:
            beat = db.execute("SELECT min(beat) FROM jobs WHERE status='running'").fetchone()[0]
        return 0.0 if beat is None else max(self.now() - beat, 0.0)

    def has_work(self, call: str) -> bool:
        """Whether a job of the call has not ended."""
        with self.database.reading() as db:
            query = "SELECT 1 FROM queue INDEXED BY queue_to_do WHERE call=? AND state=0 LIMIT 1"
            return bool(db.execute(query, (call,)).fetchone())

    def abort(self, call: str, message: str, code: int) -> None:
        """Tell the call of ``vidseg batch`` that its workers cannot work at all."""
        with self.database.writing() as db:
            db.execute("UPDATE calls SET message=?, code=? WHERE call=?", (message, code, call))

    def aborted(self, call: str) -> tuple[str, int] | None:
        """(message, exit code) of :meth:`abort`."""
        with self.database.reading() as db:
            row = db.execute("SELECT message, code FROM calls WHERE call=?", (call,)).fetchone()
        return None if row is None or row["message"] is None else (row["message"], row["code"])


def _take(db: sqlite3.Connection, key: str, owner: Owner, now: float) -> Taken:
    status = db.execute("SELECT status FROM jobs WHERE key=?", (key,)).fetchone()[0]
    ended = status not in (WAITING, RUNNING)  # then its result stays, in case that nothing comes of it
    row = db.execute(
        "UPDATE jobs SET status='running', owner=?, begun=?, beat=?, total=NULL, attempt=attempt+1"
        + ("" if ended else ", frames=0, attempts=attempts+1, deaths=deaths+(status='running')")
        + " WHERE key=? RETURNING attempt, attempts, deaths",
        (owner.record(), now, now, key),
    ).fetchone()
    return Taken(key, row["attempt"], row["attempts"], row["deaths"], status if ended else WAITING)


def _end_call(db: sqlite3.Connection, call: str) -> None:
    db.execute("DELETE FROM queue WHERE call=?", (call,))
    db.execute("DELETE FROM calls WHERE call=?", (call,))
