"""Worker processes on this machine."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vidseg.errors import UsageError
from vidseg_pipelines.batch.executors.preemption import work_until_terminated
from vidseg_pipelines.batch.worker import WorkerSpec

_STOP_S = 30.0


class LocalEngine:
    """Spawns processes. Jobs that may choose their device get the machine's CUDA devices in turn."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """There are no options.

        Raises:
            UsageError: an option was given.
        """
        if options:
            raise UsageError(f"--engine-option {next(iter(options))}: the local engine has no options")
        self._context = multiprocessing.get_context("spawn")

    def start(self, specs: Sequence[WorkerSpec], first: int) -> list[LocalWorker]:
        """Start processes."""
        return [self._start(spec, number) for number, spec in enumerate(specs, first)]

    def _start(self, spec: WorkerSpec, number: int) -> LocalWorker:
        devices = torch.cuda.device_count()
        if spec.device in ("auto", "cuda") and devices:
            spec = dataclasses.replace(spec, device=f"cuda:{number % devices}")
        process = self._context.Process(target=_work, args=(spec, number), name=f"vidseg-worker-{number}")
        with _IgnoredInterrupts():
            process.start()
        return LocalWorker(process)


class LocalWorker:
    """A worker process."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        """Take over a process that was started."""
        self.process = process

    def alive(self) -> bool:
        """Does the process live?"""
        return self.process.is_alive()

    def stop(self) -> None:
        """Let it close its files."""
        self.process.terminate()

    def join(self) -> None:
        """Wait; kill it when that takes too long."""
        self.process.join(_STOP_S)
        self.process.kill()
        self.process.join()


class _IgnoredInterrupts:
    """A process that is started inside ignores Ctrl-C, which reaches the whole group; its parent stops it."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *details: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)


def _work(spec: WorkerSpec, number: int) -> None:
    parent = multiprocessing.parent_process()
    work_until_terminated(spec, number, lambda: parent is not None and not parent.is_alive())
