"""Workers as Ray tasks (the extra ``ray``)."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

from vidseg.errors import UsageError
from vidseg_pipelines.batch.executors.preemption import work_until_terminated
from vidseg_pipelines.batch.worker import WorkerSpec

_STOP_S = 30.0


def work_until_canceled(spec: WorkerSpec, number: int) -> None:
    """Do jobs until Ray cancels the task, which it does as Ctrl-C would."""
    work_until_terminated(spec, number, by=signal.SIGINT)


class RayEngine:
    """Runs each worker as one task of a Ray cluster, or of one that it starts on this machine.

    Options: ``address`` of a cluster, and those of ``ray.remote`` such as ``num_cpus`` and ``num_gpus`` per worker.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        """Connect.

        Raises:
            UsageError: ray is not installed, does not answer, or does not know an option.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out unasked
        try:
            import ray
        except ImportError as error:
            raise UsageError("--engine ray needs the extra 'ray': pip install 'vidseg[ray]'") from error
        self._ray = ray
        address = options.pop("address", None)
        try:
            if not ray.is_initialized():
                ray.init(address=address, include_dashboard=None if address else False, logging_level=logging.ERROR)
            self._work = ray.remote(max_retries=0, **options)(work_until_canceled)
        except (ValueError, TypeError, ConnectionError) as error:
            raise UsageError(f"--engine ray: {error}") from error

    def start(self, specs: Sequence[WorkerSpec], first: int) -> list[RayWorker]:
        """Submit a task per worker."""
        return [RayWorker(self._ray, self._work.remote(spec, number)) for number, spec in enumerate(specs, first)]


class RayWorker:
    """A task."""

    def __init__(self, ray: Any, task: Any) -> None:
        """``task`` is the reference that ray gave."""
        self._ray, self._task = ray, task

    def alive(self) -> bool:
        """Is its result still missing?"""
        ready, _ = self._ray.wait([self._task], timeout=0)
        return not ready

    def stop(self) -> None:
        """Let it close its files."""
        self._ray.cancel(self._task)

    def join(self) -> None:
        """Wait a while."""
        self._ray.wait([self._task], timeout=_STOP_S)
