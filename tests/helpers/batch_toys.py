"""Models for the workers of a batch: importable, so that worker processes find them by name.

The tracker's options say what shall happen. ``log``: a file that gets a line per loaded model and per frame. While the
file ``once`` does not exist: ``slow``: seconds per frame; ``wait_at``: that frame is not done before it does (or two
minutes have passed); ``die_at``: the process creates ``once`` and dies by SIGKILL at that frame, when the file
``after`` is there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from media import write_video
from toys import KeepMasks, frames, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import WeightsError
from vidseg.sam.model import Sam
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_pipelines.batch.inputs import Request
from vidseg_pipelines.batch.job_records import Job, Result
from vidseg_pipelines.batch.jobs import plan_jobs
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.batch.worker import WorkerSpec, work
from vidseg_pipelines.run import Loaders

HEIGHT, WIDTH = 48, 64


class ToldTracker(KeepMasks):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options

    def start(self, video: VideoInfo) -> None:
        super().start(video)
        self.name = video.name

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        note(self.options, f"{os.getpid()} {self.name} {frame.index}")
        once = Path(self.options.get("once", ""))
        if not once.exists():
            if frame.index == self.options.get("die_at"):
                while not Path(self.options["after"]).exists():
                    time.sleep(0.01)
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.options.get("slow", 0))
            deadline = time.monotonic() + (120 if frame.index == self.options.get("wait_at") else 0)
            while time.monotonic() < deadline and not once.exists():
                time.sleep(0.02)
        return super().step(frame, prompts)


def note(options: dict[str, Any], line: str) -> None:
    if "log" in options:
        with Path(options["log"]).open("a") as file:
            file.write(line + "\n")


def load_sam(config: RunConfig) -> Sam:
    note(config.tracker_options, f"{os.getpid()} loads")
    return tiny_sam()


def load_tracker(config: RunConfig) -> ToldTracker:
    return ToldTracker(config.tracker_options)


def no_weights(config: RunConfig) -> Sam:
    raise WeightsError("compact: the file is damaged")


def crash(config: RunConfig) -> Sam:
    raise RuntimeError("no such library")


LOADERS = Loaders(load_sam, load_tracker)


class ThreadEngine:
    """Workers as threads of this process: for tests that are not about processes, which take seconds to begin."""

    def start(self, specs: Sequence[WorkerSpec], first: int) -> list[ThreadWorker]:
        return [ThreadWorker(spec, number) for number, spec in enumerate(specs, first)]


class ThreadWorker:
    def __init__(self, spec: WorkerSpec, number: int) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(spec, number))
        self._thread.start()

    def _run(self, spec: WorkerSpec, number: int) -> None:
        with suppress(Exception):
            work(spec, number, self._stop.is_set)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join()


def make_clip(path: Path, count: int = 6) -> Path:
    return write_video(path, [frame.rgb for frame in frames(count, HEIGHT, WIDTH)])


def make_mask(path: Path) -> Path:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:25, 6:30], labels[28:44, 30:60] = 1, 2
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)
    return path


def plan(out: Path, requests: Iterable[Request], **how: bool) -> tuple[BatchRecords, list[Job], str]:
    """The records, the jobs in the order of the requests, and the call that is to do them."""
    store = BatchRecords(out)
    call = plan_jobs(store, requests, **how)
    with store.database.reading() as db:
        keys = [row[0] for row in db.execute("SELECT key FROM queue WHERE call=? ORDER BY ordinal", (call,))]
    return store, [store.job(key) for key in keys], call


def finished(store: BatchRecords) -> set[str]:
    return {row["key"] for row in store.rows() if row["status"] not in ("waiting", "running")}


def result_of(store: BatchRecords, job: Job) -> Result:
    result = store.result(job.key)
    assert result is not None
    return result


def until(condition: Callable[[], bool]) -> bool:
    """Wait for it, for a while."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False
