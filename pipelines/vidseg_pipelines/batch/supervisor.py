"""Keeps workers going until every job of a call has ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence

from vidseg.errors import InputError, OutputError, UsageError, VidsegError, WeightsError
from vidseg_pipelines.batch.executors import Engine, Handle
from vidseg_pipelines.batch.leases import Leases
from vidseg_pipelines.batch.store import BatchRecords, Job, Result
from vidseg_pipelines.batch.worker import WorkerSpec
from vidseg_pipelines.run import Loaders

POLL_S = 0.5
_FALSE_STARTS = 3

Ended = Callable[[Job, Result], None]


def supervise(
    store: BatchRecords,
    leases: Leases,
    jobs: Sequence[Job],
    engine: Engine,
    *,
    workers: int,
    threads: int | None = None,
    device: str | None = None,
    loaders: Loaders | None = None,
    on_end: Ended = lambda job, result: None,
) -> None:
    """Start up to ``workers`` workers, replace those that die, and return when every one of ``jobs`` has ended.

    ``on_end`` is called with each job that ends meanwhile. Jobs that another call is at are waited for.

    Raises:
        UsageError, WeightsError: a model cannot be loaded.
        OutputError: workers end again and again without having ended a job.
    """
    by_key = {job.key: job for job in jobs}
    call = uuid.uuid4().hex[:12]
    spec = WorkerSpec(store.folder, tuple(by_key), call, leases.timeout_s, threads, device, loaders or Loaders())
    told = store.finished()
    running: list[Handle] = []
    started = false_starts = progress = 0
    try:
        while True:
            alive = [handle for handle in running if handle.alive()]
            finished = store.finished()  # after the look at the workers: what they did last is in it
            for key in [key for key in by_key if key in finished and key not in told]:
                told.add(key)
                result = store.result(key)
                if result is not None:
                    on_end(by_key[key], result)
            abort = store.aborted(call)
            if abort is not None:
                raise _error(*abort)
            if finished >= by_key.keys():
                return
            free, ours, deaths = _count(leases, by_key.keys() - finished, call)
            if len(finished) + deaths > progress:  # a job has at most MAX_DEATHS
                progress, false_starts = len(finished) + deaths, 0
            elif free and len(alive) < len(running):
                false_starts += 1
                if false_starts == _FALSE_STARTS:
                    raise OutputError("workers end without having ended a job: see their messages")
            running = alive
            while len(running) < min(workers, free + ours):
                running.append(engine.start(spec, started))
                started += 1
            time.sleep(POLL_S)
    except BaseException:
        for handle in running:
            handle.stop()
        raise
    finally:
        for handle in running:
            handle.join()


def _count(leases: Leases, keys: Iterable[str], call: str) -> tuple[int, int, int]:
    """How many jobs nobody is at, how many workers of ``call`` are at, and how many workers died at them."""
    attempts = leases.attempts()
    free = ours = deaths = 0
    for key in keys:
        last = attempts[key][-1] if key in attempts else None
        if last is None or not leases.is_live(last):
            free += 1
        elif last.owner is not None and last.owner.call == call:
            ours += 1
        deaths += sum(not attempt.ended for attempt in attempts.get(key, []))
    return free, ours, deaths


def _error(message: str, code: int) -> VidsegError:
    kinds = (UsageError, InputError, WeightsError)
    return next((kind for kind in kinds if kind.exit_code == code), OutputError)(message)
