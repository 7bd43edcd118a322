from __future__ import annotations

import errno
import itertools
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import batch_toys
from batch_toys import until
from vidseg import processes
from vidseg.config import RunConfig
from vidseg.errors import InputError
from vidseg_pipelines.batch import database
from vidseg_pipelines.batch.database import Database, is_on_network
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.job_records import Result
from vidseg_pipelines.batch.leases import Owner, process_born
from vidseg_pipelines.batch.store import BatchRecords, Taken

ME = Owner.this_process("call", 0)


def records(folder: Path, timeout_s: float = 60.0, jobs: int = 1) -> BatchRecords:
    store, _, _ = batch_toys.plan(folder, expand([f"{number}.mp4" for number in range(jobs)], RunConfig()))
    store.timeout_s = timeout_s
    return store


def record(store: BatchRecords) -> sqlite3.Row:
    return next(store.rows())


def key(store: BatchRecords) -> str:
    return str(record(store)["key"])


def take(store: BatchRecords, owner: Owner = ME) -> Taken:
    taken = store.take_job(key(store), owner)
    assert taken is not None
    return taken


def is_live(store: BatchRecords) -> bool:
    return store.is_live(record(store))


def set_beat(store: BatchRecords, beat: float) -> None:
    with store.database.writing() as db:
        db.execute("UPDATE jobs SET beat=?", (beat,))


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_one_of_many_gets_each_job(tmp_path: Path) -> None:
    _, jobs, call = batch_toys.plan(tmp_path, expand([f"{n}.mp4" for n in range(40)], RunConfig()))
    start, got = threading.Barrier(8), []

    def race(number: int) -> None:
        own = BatchRecords(tmp_path)  # as another process has
        start.wait()
        while (taken := own.take(call, ME, (number, 8))) is not None:
            got.append(taken.key)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(job.key for job in jobs)


def test_a_shard_comes_first_and_then_all_others(tmp_path: Path) -> None:
    store, jobs, call = batch_toys.plan(tmp_path, expand([f"{n}.mp4" for n in range(5)], RunConfig()))
    got = [store.take(call, ME, (1, 2)) for _ in range(5)]
    assert [taken and taken.key for taken in got] == [jobs[n].key for n in (1, 3, 0, 2, 4)]
    assert store.take(call, ME, (1, 2)) is None


@pytest.mark.parametrize("shard", [(0, 1), (3, 4)])
def test_a_job_costs_the_same_however_many_there_are(tmp_path: Path, shard: tuple[int, int]) -> None:
    """In steps of the database, for a worker and for the supervisor, when all jobs but the last ten have ended."""
    costs = []
    for count in (200, 2000):
        store, jobs, call = batch_toys.plan(
            tmp_path / str(count), expand([f"{n}.mp4" for n in range(count)], RunConfig())
        )
        for job in jobs[:-10]:
            store.finish(job.key, Result("done"))
        while store.news(call):
            pass
        steps = counted(store)
        taken = store.take(call, ME, shard)
        assert taken is not None
        store.standing(call, 2)
        store.bury(call)
        store.has_work(call)
        store.finish(taken.key, Result("done"), taken.attempt)
        store.news(call)
        costs.append(next(steps))
    assert costs[1] <= 1.2 * costs[0]


def test_a_worker_does_not_look_through_the_jobs_of_others_again_and_again(tmp_path: Path) -> None:
    """One that is alone does its own share, of every second job, and then that of the worker that never came."""
    costs = []
    for count in (100, 1000):
        store, _, call = batch_toys.plan(tmp_path / str(count), expand([f"{n}.mp4" for n in range(count)], RunConfig()))
        steps = counted(store)
        while (taken := store.take(call, ME, (1, 2))) is not None:
            store.finish(taken.key, Result("done"), taken.attempt)
        costs.append(next(steps))
        assert not store.has_work(call)
    assert costs[1] <= 1.2 * 10 * costs[0]


def counted(store: BatchRecords) -> Iterator[int]:
    """A number that grows with every step of the database."""
    steps = itertools.count()

    def step() -> int:
        next(steps)
        return 0

    with store.database.reading() as db:
        db.set_progress_handler(step, 1)
    return steps


def test_a_lease_lives_until_its_block_ends(tmp_path: Path) -> None:
    store = records(tmp_path)
    with store.lease(take(store)):
        assert is_live(store)
        assert store.take_job(key(store), ME) is None
    assert not is_live(store)
    with store.lease(take(store)):
        assert record(store)["attempts"] == 2
        assert is_live(store)
    assert record(store)["deaths"] == 0


def test_a_killed_process_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    store = records(tmp_path, 3600)

    def hold() -> None:
        with store.lease(take(store, Owner.this_process("call", 1))):
            time.sleep(60)

    pid = in_child(hold)
    assert until(lambda: is_live(store))
    os.kill(pid, signal.SIGSTOP)  # not dead, only slow
    assert is_live(store)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not is_live(store))  # also while nobody has waited for it
    os.waitpid(pid, 0)
    assert not is_live(store)
    assert take(store).deaths == 1


def test_a_process_id_that_was_given_away_again_is_dead(tmp_path: Path) -> None:
    store = records(tmp_path, 3600)
    take(store, replace(ME, born="1"))
    assert not is_live(store)


def test_elsewhere_an_old_heartbeat_means_death(tmp_path: Path) -> None:
    store = records(tmp_path)
    take(store, replace(ME, host="elsewhere"))
    assert is_live(store)
    set_beat(store, time.time() - 61)
    assert not is_live(store)


def test_the_heart_beats(tmp_path: Path) -> None:
    store = records(tmp_path, 0.3)
    with store.lease(take(store), lambda: (7, 9)):
        set_beat(store, 0.0)
        assert until(lambda: record(store)["beat"] > 0)
    assert (record(store)["frames"], record(store)["total"]) == (7, 9)


def test_a_hiccup_of_the_file_system_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, hiccups = records(tmp_path, 0.3), threading.Event()

    def stale(self: BatchRecords) -> float:
        hiccups.set()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with store.lease(take(store, replace(ME, host="elsewhere"))):
        with monkeypatch.context() as patch:
            patch.setattr(BatchRecords, "now", stale)
            assert is_live(store)
            hiccups.clear()
            assert hiccups.wait(120)
        set_beat(store, 0.0)
        assert until(lambda: record(store)["beat"] > 0)


def test_a_worker_that_lost_its_lease_ends(tmp_path: Path) -> None:
    store = records(tmp_path, 0.3)

    def hold() -> None:
        with store.lease(take(store, replace(ME, host="elsewhere"))):
            time.sleep(60)

    pid = in_child(hold)
    assert until(lambda: is_live(store))
    with store.database.writing() as db:
        db.execute("UPDATE jobs SET attempt=attempt+1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_what_a_worker_without_its_lease_finishes_does_not_count(tmp_path: Path) -> None:
    store = records(tmp_path)
    slow = take(store, replace(ME, born="1"))
    take(store)
    store.finish(slow.key, batch_toys.Result("failed", "too late"), slow.attempt)
    assert is_live(store)


def test_processes_are_told_apart_without_a_proc_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a signal 0 would end the process, so none is sent."""
    monkeypatch.setattr(processes, "Path", lambda *parts: SimpleNamespace(exists=lambda: False))
    monkeypatch.setattr(os, "kill", lambda *a: pytest.fail("a signal was sent"))
    me = process_born(os.getpid())
    assert me == process_born(os.getpid()) != ""
    assert me != process_born(1) != ""
    pid = in_child(lambda: None)
    assert until(lambda: process_born(pid) == "")  # a zombie is dead
    os.waitpid(pid, 0)
    assert process_born(pid) == ""


@pytest.mark.parametrize(("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("fuse.sshfs", "delete")])
def test_machines_share_records_through_locks_and_not_through_memory(
    tmp_path: Path, kind: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [
        SimpleNamespace(mountpoint=str(place), fstype=fs, opts="rw") for place, fs in (("/", "xfs"), (tmp_path, kind))
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert is_on_network(tmp_path / "records") == (mode == "delete")
    with records(tmp_path).database.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == mode


def test_records_of_a_local_disk_are_not_used_over_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records(tmp_path)
    monkeypatch.setattr(database, "is_on_network", lambda path: True)
    with pytest.raises(InputError, match="local disk of another machine"):
        records(tmp_path)


def test_damaged_records_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="damaged records of a batch; use another --output"):
        Database(tmp_path / "x.sqlite").create("")
