from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vidseg_pipelines.batch.leases import Lease, Leases, Owner

ME = Owner.this_process("call", 0)


def until(condition: Callable[[], bool]) -> bool:
    """Wait for it, for a while."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def take(leases: Leases, owner: Owner = ME, after: int = 0) -> Lease:
    lease = leases.take("job", after, owner)
    assert lease is not None
    return lease


def last_is_live(leases: Leases) -> bool:
    return leases.is_live(leases.attempts()["job"][-1])


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_one_of_many_gets_the_job(tmp_path: Path) -> None:
    leases, start, got = Leases(tmp_path, 60), threading.Barrier(8), []

    def race() -> None:
        for number in range(20):
            start.wait()
            lease = leases.take("job", number, ME)
            if lease is not None:
                got.append(number)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == list(range(20))


def test_a_lease_lives_until_its_block_ends(tmp_path: Path) -> None:
    leases = Leases(tmp_path, 60)
    with take(leases):
        assert last_is_live(leases)
    assert not last_is_live(leases)
    with take(leases, after=1):
        assert leases.attempts()["job"][-1].number == 2
        assert last_is_live(leases)


def test_a_killed_process_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    leases = Leases(tmp_path, 3600)

    def hold() -> None:
        with take(leases, Owner.this_process("call", 1)):
            time.sleep(60)

    pid = in_child(hold)
    assert until(lambda: "job" in leases.attempts() and last_is_live(leases))
    os.kill(pid, signal.SIGSTOP)  # not dead, only slow
    assert last_is_live(leases)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not last_is_live(leases))  # also while nobody has waited for it
    os.waitpid(pid, 0)
    assert not last_is_live(leases)


def test_a_process_id_that_was_given_away_again_is_dead(tmp_path: Path) -> None:
    leases = Leases(tmp_path, 3600)
    take(leases, replace(ME, born="1"))
    assert not last_is_live(leases)


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_elsewhere_an_old_heartbeat_means_death(tmp_path: Path, host: str | None) -> None:
    leases = Leases(tmp_path, 60)
    take(leases, replace(ME, host=host or ME.host))
    (attempt,) = leases.attempts()["job"]
    if host is None:
        attempt.path.write_text("")  # killed between creating and writing: nobody knows whose it is
    assert leases.is_live(attempt)
    then = time.time() - 61
    os.utime(attempt.path, (then, then))
    assert not leases.is_live(attempt)


def test_the_heart_beats(tmp_path: Path) -> None:
    leases = Leases(tmp_path, 0.3)
    with take(leases):
        (attempt,) = leases.attempts()["job"]
        os.utime(attempt.path, (0, 0))
        assert until(lambda: attempt.path.stat().st_mtime > 0)


@pytest.mark.parametrize("method", ["exists", "stat"])
def test_a_hiccup_of_the_file_system_is_no_death(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leases, hiccups = Leases(tmp_path, 0.3), threading.Event()

    def stale(path: Path, **options: bool) -> None:
        hiccups.set()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with take(leases, replace(ME, host="elsewhere")):
        (attempt,) = leases.attempts()["job"]
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, stale)
            assert leases.is_live(attempt)
            assert hiccups.wait(20)
        os.utime(attempt.path, (0, 0))
        assert until(lambda: attempt.path.stat().st_mtime > 0)


def test_a_worker_that_lost_its_lease_ends(tmp_path: Path) -> None:
    leases = Leases(tmp_path, 0.3)

    def hold() -> None:
        with take(leases):
            time.sleep(60)

    pid = in_child(hold)
    assert until(lambda: "job" in leases.attempts())
    take(leases, after=1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
