"""Keeps workers going until every job of a call has ended."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Callable

from vidseg.errors import InputError, OutputError, UsageError, VidsegError, WeightsError
from vidseg_pipelines.batch.executors import Engine, Handle
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.batch.worker import WorkerSpec

POLL_S = 0.5
_FALSE_STARTS = 3

Ended = Callable[[sqlite3.Row], None]
"""Is called with the record of a job that has ended."""


def supervise(
    store: BatchRecords, spec: WorkerSpec, engine: Engine, *, workers: int, on_end: Ended = lambda row: None
) -> None:
    """Start up to ``workers`` workers, replace those that die, and return when every job of the call has ended.

    ``on_end`` is called with each job that ends meanwhile. Jobs that another call is at are waited for.

    Raises:
        UsageError, WeightsError: a model cannot be loaded.
        OutputError: workers end again and again without having ended a job.
    """
    call = spec.call
    running: list[Handle] = []
    started = false_starts = ended = progress = 0
    try:
        while True:
            alive = [handle for handle in running if handle.alive()]
            has_work = store.has_work(call)  # after the look at the workers: what they did last is in it
            while news := store.news(call):
                ended += len(news)
                for row in news:
                    on_end(row)
            abort = store.aborted(call)
            if abort is not None:
                raise _error(*abort)
            if not has_work:
                return
            store.bury(call)
            free, ours, deaths = store.standing(call, workers)
            if ended + deaths > progress:  # a job has at most MAX_DEATHS
                progress, false_starts = ended + deaths, 0
            elif free and len(alive) < len(running):
                false_starts += 1
                if false_starts == _FALSE_STARTS:
                    raise OutputError("workers end without having ended a job: see their messages")
            running = alive
            missing = min(workers, free + ours) - len(running)
            if missing > 0:
                shards = [dataclasses.replace(spec, shard=((started + i) % workers, workers)) for i in range(missing)]
                running += engine.start(shards, started)
                started += missing
            time.sleep(POLL_S)
    except BaseException:
        for handle in running:
            handle.stop()
        raise
    finally:
        for handle in running:
            handle.join()


def _error(message: str, code: int) -> VidsegError:
    kinds = (UsageError, InputError, WeightsError)
    return next((kind for kind in kinds if kind.exit_code == code), OutputError)(message)
