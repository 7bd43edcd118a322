"""The same work on many sequences: in this process or in a few, always with the results in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2

from vidseg.errors import UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")


def _one_thread() -> None:
    cv2.setNumThreads(1)


def run_all(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterable[Result]:
    """``work(job)`` for every job, in the order of ``jobs``; with ``workers`` > 1 in that many processes.

    ``work`` and the jobs must be picklable. The results do not depend on ``workers``.

    Raises:
        UsageError: ``workers`` < 1; and whatever ``work`` raises, for the first job that fails.
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: expected at least 1")
    if min(workers, len(jobs)) < 2:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (torch, OpenCV) may hang
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_one_thread) as pool:
        yield from pool.map(work, jobs, chunksize=max(1, len(jobs) // (16 * workers)))
