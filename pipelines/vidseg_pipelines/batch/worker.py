"""A worker: takes jobs until none is left. It loads the models once."""

from __future__ import annotations

import dataclasses
import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import torch

from vidseg.config import RunConfig
from vidseg.errors import FolderInUseError, InputError, VidsegError, WeightsError
from vidseg.runtime import loses_device
from vidseg.storage_lease import STALE_S
from vidseg.types import Source, VideoInfo
from vidseg_pipelines.batch.job_records import Result
from vidseg_pipelines.batch.leases import Owner
from vidseg_pipelines.batch.limits import VideoLimits, VideoWatch
from vidseg_pipelines.batch.store import BatchRecords, Taken
from vidseg_pipelines.run import Loaders, run_video
from vidseg_pipelines.run_summary import RunSummary
from vidseg_pipelines.streaming import Advance

MAX_DEATHS = 3
"""A job that was under way when so many workers died is not tried again."""

LOCK_PATIENCE_S = 1.5 * STALE_S
"""How long the lock of a folder may outlive the machine on which a worker died."""

T = TypeVar("T")
Stop = Callable[[], bool]


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; it is pickled on its way to another process or machine."""

    folder: Path
    """Output folder of the batch."""
    call: str
    """The call of ``vidseg batch`` whose jobs it does."""
    lease_timeout_s: float = 60.0
    threads: int | None = None
    """CPU threads of the networks (None: PyTorch's choice)."""
    device: str | None = None
    """Replaces the jobs' own device."""
    loaders: Loaders = field(default_factory=Loaders)
    limits: VideoLimits = field(default_factory=VideoLimits)
    shard: tuple[int, int] = (0, 1)
    """(i, n): it begins with the jobs i, i + n, i + 2 n, ... of the call."""
    segment: Callable[..., RunSummary] = run_video
    """What does a job: as :func:`vidseg_pipelines.run.run_video`."""


def work(spec: WorkerSpec, number: int, stop: Stop = lambda: False) -> None:
    """Do jobs until all are done or in other hands, or until ``stop()``.

    A job that fails is recorded with its reason. When the device failed with it, this worker ends: another process is
    needed for the other jobs. A model that cannot be loaded ends all work: see :meth:`BatchRecords.abort`.
    """
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
        cv2.setNumThreads(spec.threads)
    store = BatchRecords(spec.folder, spec.lease_timeout_s)
    owner = Owner.this_process(spec.call, number)
    spec = dataclasses.replace(spec, loaders=remembering(spec.loaders, spec.device))
    gc.collect()
    gc.freeze()  # what is imported stays: looking through it behind every video would take longer than a short one
    while not stop():
        taken = store.take(spec.call, owner, spec.shard)
        if taken is None:
            return

        def end(result: Result, taken: Taken = taken) -> None:
            store.finish(
                taken.key, dataclasses.replace(result, attempts=taken.attempts, worker=str(owner)), taken.attempt
            )

        def give_up(reason: str, end: Callable[[Result], None] = end) -> None:
            end(_failed(reason))

        watch = VideoWatch(spec.limits, stop, give_up)
        lost = False
        with store.lease(taken, watch.progress, watch.check) as lease:
            try:
                poisoned = taken.deaths >= MAX_DEATHS
                result = _failed(_poisoned(taken.deaths)) if poisoned else _do(store, taken, spec, watch)
            except _NoModelError as error:
                store.abort(spec.call, str(error), error.exit_code)
                return
            except _DeviceLostError as error:
                result, lost = error.result, True
            end(result)
            lease.ended = True
        if lost:
            return
        _free_memory()


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


def _do(store: BatchRecords, taken: Taken, spec: WorkerSpec, watch: VideoWatch) -> Result:
    """One attempt at a job; continues what an earlier attempt left."""
    begun = time.perf_counter()
    try:
        config = dataclasses.replace(store.job(taken.key).config, resume=True)
    except VidsegError as error:
        return _failed(str(error))
    try:
        spec.loaders.sam(config)
    except VidsegError as error:
        raise _NoModelError(error) from error

    def start(info: VideoInfo, total: int | None) -> Advance:
        watch.total = total
        return watch.advance

    try:
        summary = patiently(
            lambda: spec.segment(config, on_start=start, loaders=spec.loaders, on_open=refuse_live), taken.deaths
        )
    except WeightsError as error:  # of the tracker or detector
        raise _NoModelError(error) from error
    except VidsegError as error:
        return _failed(str(error), time.perf_counter() - begun)
    except Exception as error:
        path = store.save_traceback(taken.key, traceback.format_exc())
        reason = f"internal error: {type(error).__name__}: {error} (traceback: {path})"
        result = _failed(reason, time.perf_counter() - begun)
        if loses_device(error):
            raise _DeviceLostError(result) from error
        return result
    seconds = round(time.perf_counter() - begun, 3)
    return Result(summary.status, "; ".join(summary.warnings), seconds, summary.frames, len(summary.objects))


def patiently(segment: Callable[[], RunSummary], deaths: int) -> RunSummary:
    """``segment()``; after ``deaths`` of workers at the same video, wait until their lock of its folder is gone."""
    deadline = time.monotonic() + (LOCK_PATIENCE_S if deaths else 0)
    while True:
        try:
            return segment()
        except FolderInUseError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(1)


def refuse_live(source: Source) -> None:
    """Raises an InputError for a source without an end."""
    if source.live:
        raise InputError(f"{source.info.name}: a live source has no end and cannot be resumed: use vidseg run")


def _failed(reason: str, seconds: float = 0.0) -> Result:
    return Result("failed", " ".join(reason.split()), round(seconds, 3))


def _poisoned(deaths: int) -> str:
    return f"{deaths} workers died while they were at it (killed, out of memory?)"


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


def remembering(loaders: Loaders, device: str | None) -> Loaders:
    """Loaders that keep what they loaded last, for many videos in a row; ``device`` replaces that of the settings."""
    return Loaders(
        _Last(loaders.sam, lambda config: (config.model, config.compile), device),
        _Last(loaders.tracker, lambda config: (config.tracker, repr(config.all_tracker_options())), device),
        _Last(loaders.detector, lambda config: (config.detector, repr(config.all_detector_options())), device),
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
