"""Workers as a SLURM job array, through submitit (the extra ``slurm``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidseg.errors import UsageError
from vidseg_pipelines.batch.executors.preemption import work_until_terminated
from vidseg_pipelines.batch.worker import WorkerSpec

_DAY_MIN = 24 * 60
_STOP_S = 30.0
_POLL_S = 0.2


class SlurmEngine:
    """Submits workers as a job array, a worker per task of it; each begins with a shard of the jobs.

    Options: those of submitit's AutoExecutor, such as ``slurm_partition``, ``gpus_per_node``, ``cpus_per_task``,
    ``mem_gb`` and ``timeout_min`` (default: one day), and ``cluster=local``, which needs no SLURM.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        """Prepare; submitit's logs go to ``folder``.

        Raises:
            UsageError: submitit is not installed, there is no SLURM here, or an option is unknown.
        """
        try:
            import submitit
        except ImportError as error:
            raise UsageError("--engine slurm needs the extra 'slurm': pip install 'vidseg[slurm]'") from error
        cluster = options.pop("cluster", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
            self._executor.update_parameters(**{"name": "vidseg", "timeout_min": _DAY_MIN, **options})
        except (RuntimeError, ValueError, TypeError, NameError) as error:
            raise UsageError(f"--engine slurm: {error}") from error

    def start(self, specs: Sequence[WorkerSpec], first: int) -> list[SlurmWorker]:
        """Submit a job array."""
        numbers = range(first, first + len(specs))
        return [SlurmWorker(job) for job in self._executor.map_array(work_until_terminated, specs, numbers)]


class SlurmWorker:
    """A task of a submitted array."""

    def __init__(self, job: Any) -> None:
        """``job`` is what submitit gave."""
        self._job = job

    def alive(self) -> bool:
        """Is it waiting or running?"""
        return not self._job.done()

    def stop(self) -> None:
        """Cancel it."""
        self._job.cancel()

    def join(self) -> None:
        """Wait a while."""
        deadline = time.monotonic() + _STOP_S
        while self.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
