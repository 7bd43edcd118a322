"""What SIGTERM means for a worker, and SIGINT for one of Ray: save the state, within ten seconds, and go."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from vidseg_pipelines.batch.worker import WorkerSpec, work
from vidseg_pipelines.streaming import OutOfTime

PATIENCE_S = 8.0
"""Seconds in which the micro-batch under way may end; then it is interrupted, and the last snapshot counts."""


def work_until_terminated(
    spec: WorkerSpec, number: int, stop: Callable[[], bool] = lambda: False, by: signal.Signals = signal.SIGTERM
) -> None:
    """Do jobs as :func:`~vidseg_pipelines.batch.worker.work`, until that signal. It has to be the main thread."""
    terminated = False

    def terminate(signal_number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        if not terminated:
            terminated = True
            _interrupt_after(PATIENCE_S)

    def stopping() -> bool:
        if terminated:
            _interrupt_after(0)  # the micro-batch has ended: nothing disturbs the saving and uploading of its state
        return terminated or stop()

    before = signal.signal(by, terminate)
    try:
        work(spec, number, stopping)
    except KeyboardInterrupt:
        return
    finally:
        _interrupt_after(0)
        signal.signal(by, before)


def _interrupt_after(seconds: float) -> None:
    """Raise :class:`OutOfTime` in the main thread then; 0: do not. Without such signals (Windows) nothing happens."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise OutOfTime
