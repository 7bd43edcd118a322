"""What SIGTERM means for a worker: save the state, within ten seconds, and go."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from vidseg_pipelines.batch.worker import WorkerSpec, work

PATIENCE_S = 8.0
"""Seconds in which the micro-batch under way may end; then it is interrupted, and the last snapshot counts."""


def work_until_terminated(spec: WorkerSpec, number: int, stop: Callable[[], bool] = lambda: False) -> None:
    """Do jobs as :func:`~vidseg_pipelines.batch.worker.work`, until SIGTERM. The main thread of a process does it."""
    terminated = False

    def terminate(signal_number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        if hasattr(signal, "setitimer") and not terminated:
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        terminated = True

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        work(spec, number, lambda: terminated or stop())
    except KeyboardInterrupt:
        return
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
