"""A worker: takes jobs until none is left. It loads the models once."""

from __future__ import annotations

import dataclasses
import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import torch

from vidseg.config import RunConfig
from vidseg.errors import InputError, VidsegError, WeightsError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.runtime import loses_device
from vidseg.types import Source, VideoInfo
from vidseg_pipelines.batch.leases import Attempt, Lease, Leases, Owner, since_planned
from vidseg_pipelines.batch.store import BatchRecords, Result
from vidseg_pipelines.run import Loaders, run_video
from vidseg_pipelines.streaming import Advance

MAX_DEATHS = 3
"""A job that was under way when so many workers died is not tried again."""

T = TypeVar("T")
Stop = Callable[[], bool]


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; it is pickled on its way to another process or machine."""

    folder: Path
    """Output folder of the batch."""
    keys: tuple[str, ...]
    """The jobs of this call, in order."""
    call: str
    """Names the call of ``vidseg batch``."""
    lease_timeout_s: float = 60.0
    threads: int | None = None
    """CPU threads of the networks (None: PyTorch's choice)."""
    device: str | None = None
    """Replaces the jobs' own device."""
    loaders: Loaders = field(default_factory=Loaders)


def work(spec: WorkerSpec, number: int, stop: Stop = lambda: False) -> None:
    """Do jobs until all are done or in other hands, or until ``stop()``.

    A job that fails is recorded with its reason. When the device failed with it, this worker ends: another process is
    needed for the other jobs. A model that cannot be loaded ends all work: see :meth:`BatchRecords.abort`.
    """
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
        cv2.setNumThreads(spec.threads)
    store = BatchRecords(spec.folder)
    leases = Leases(store.attempts, spec.lease_timeout_s)
    owner = Owner.this_process(spec.call, number)
    loaders = _remembering(spec.loaders, spec.device)
    while not stop():
        taken = _take(store, leases, spec.keys, owner)
        if taken is None:
            return
        key, lease, earlier = taken
        with lease:
            if key in store.finished():  # by a worker that was faster
                continue
            try:
                deaths = sum(not attempt.ended for attempt in earlier)
                result = _failed(_poisoned(deaths)) if deaths >= MAX_DEATHS else _do(store, key, loaders, stop)
                lost = False
            except _NoModelError as error:
                store.abort(spec.call, str(error), error.exit_code)
                return
            except _DeviceLostError as error:
                result, lost = error.result, True
            store.finish(key, dataclasses.replace(result, attempts=len(earlier) + 1, worker=str(owner)))
        if lost:
            return
        _free_memory()


def _take(
    store: BatchRecords, leases: Leases, keys: Sequence[str], owner: Owner
) -> tuple[str, Lease, list[Attempt]] | None:
    """The first job that has not ended and that nobody is at: its key, its lease, the attempts before."""
    finished, attempts = store.finished(), leases.attempts()
    for key in keys:
        earlier = attempts.get(key, [])
        if key not in finished and not (earlier and leases.is_live(earlier[-1])):
            lease = leases.take(key, earlier[-1].number if earlier else 0, owner)
            if lease is not None:
                return key, lease, since_planned(earlier)
    return None


class _NoModelError(Exception):
    """No job can be done; the cause is the :class:`VidsegError`."""

    def __init__(self, cause: VidsegError) -> None:
        super().__init__(str(cause))
        self.exit_code = cause.exit_code


class _DeviceLostError(Exception):
    """A job ended with an error after which every further call of the device fails in this process."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.reason)
        self.result = result


def _do(store: BatchRecords, key: str, loaders: Loaders, stop: Stop) -> Result:
    """One attempt at a job; continues what an earlier attempt left."""
    begun = time.perf_counter()
    try:
        config = dataclasses.replace(store.job(key).config, resume=True)
    except VidsegError as error:
        return _failed(str(error))
    try:
        loaders.sam(config)
    except VidsegError as error:
        raise _NoModelError(error) from error
    try:
        summary = run_video(config, on_start=_stopper(stop), loaders=loaders, on_open=_refuse_live)
    except WeightsError as error:  # of the tracker or detector
        raise _NoModelError(error) from error
    except VidsegError as error:
        return _failed(str(error), time.perf_counter() - begun)
    except Exception as error:
        path = store.save_traceback(key, traceback.format_exc())
        reason = f"internal error: {type(error).__name__}: {error} (traceback: {path})"
        result = _failed(reason, time.perf_counter() - begun)
        if loses_device(error):
            raise _DeviceLostError(result) from error
        return result
    seconds = round(time.perf_counter() - begun, 3)
    return Result(summary.status, "; ".join(summary.warnings), seconds, summary.frames, len(summary.objects))


def _refuse_live(source: Source) -> None:
    if source.live:
        raise InputError(f"{source.info.name}: a live source has no end and cannot be resumed: use vidseg run")


def _failed(reason: str, seconds: float = 0.0) -> Result:
    return Result("failed", " ".join(reason.split()), round(seconds, 3))


def _poisoned(deaths: int) -> str:
    return f"{deaths} workers died while they were at it (killed, out of memory?)"


def _stopper(stop: Stop) -> Callable[[VideoInfo, int | None], Advance]:
    def advance(results: Sequence[FrameMasks]) -> None:
        if stop():
            raise KeyboardInterrupt

    return lambda info, total: advance


class _Last(Generic[T]):
    """A loader that remembers what it gave last. ``asked`` is what of a configuration decides what it gives."""

    def __init__(
        self, load: Callable[[RunConfig], T], asked: Callable[[RunConfig], tuple[object, ...]], device: str | None
    ) -> None:
        self._load, self._asked, self._device = load, asked, device
        self._last: tuple[tuple[object, ...], T] | None = None

    def __call__(self, config: RunConfig) -> T:
        config = dataclasses.replace(config, device=self._device or config.device)
        key = (*self._asked(config), config.device, config.dtype)
        if self._last is None or self._last[0] != key:
            self._last = None  # free the old one first
            self._last = key, self._load(config)
        return self._last[1]


def _remembering(loaders: Loaders, device: str | None) -> Loaders:
    return Loaders(
        _Last(loaders.sam, lambda config: (config.model,), device),
        _Last(loaders.tracker, lambda config: (config.tracker, repr(config.all_tracker_options())), device),
        _Last(loaders.detector, lambda config: (config.detector, repr(config.all_detector_options())), device),
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
