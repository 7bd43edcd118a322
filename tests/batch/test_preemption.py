"""SIGTERM: a worker saves the state of the frame just done, here or in object storage, and the results are the same."""

from __future__ import annotations

import _thread
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors import safe_open

import batch_toys
from batch_toys import LOADERS, ToldTracker, make_clip, make_mask
from vidseg.config import RunConfig
from vidseg.storage import Storage
from vidseg.types import Frame, Prompt, Tracks
from vidseg_pipelines.batch.executors import preemption
from vidseg_pipelines.batch.executors.preemption import work_until_terminated
from vidseg_pipelines.batch.executors.ray import work_until_canceled
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.remote import RemoteBatch
from vidseg_pipelines.batch.worker import WorkerSpec, work
from vidseg_pipelines.run import run_video
from vidseg_pipelines.streaming import OutOfTime

if TYPE_CHECKING:
    from object_storage import Bucket


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """This process is the worker."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGALRM)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Snapshots are rare: after a SIGTERM there is only the one that it caused."""
    mask = str(make_mask(tmp_path / "first.png"))
    video = str(make_clip(tmp_path / "a.mp4", 12))
    return RunConfig(input=video, mask=(mask,), save="davis,ytvis", refine="box", snapshot_every=1000, batch=2)


@pytest.fixture
def whole(config: RunConfig, tmp_path: Path) -> Callable[[str], bytes]:
    """The results of a run that was not interrupted."""
    run_video(replace(config, output=tmp_path / "whole"), loaders=LOADERS)
    return lambda name: (tmp_path / "whole" / name).read_bytes()


def plan(folder: Path, config: RunConfig) -> WorkerSpec:
    _, _, call = batch_toys.plan(folder, expand([config.input], replace(config, input="")))
    return WorkerSpec(folder, call, loaders=LOADERS)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at_frame(index: int, monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> None:
    """What happens while the worker is at a frame, for once."""
    step = ToldTracker.step
    come = []

    def step_and_more(self: ToldTracker, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        if frame.index == index and not come:
            come.append(index)
            for event in events:
                event()
        return step(self, frame, prompts)

    monkeypatch.setattr(ToldTracker, "step", step_and_more)


def next_frame(snapshot: Path) -> str:
    with safe_open(snapshot, framework="pt") as file:
        return str(file.metadata()["next_frame"])


RESULTS = ("masks.jsonl", "ytvis.json", *(f"davis/{index:05d}.png" for index in range(12)))


def test_the_next_worker_goes_on_with_the_next_frame(
    tmp_path: Path, config: RunConfig, whole: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    spec = plan(out, config)
    at_frame(6, monkeypatch, sigterm)
    work_until_terminated(spec, 0)
    assert json.loads((out / "a" / "run.json").read_text())["status"] == "interrupted"
    assert next_frame(out / "a" / "snapshot.safetensors") == "8"
    assert not (out / "a" / "ytvis.json").exists(), "there is no time for exports"
    work(spec, 0)
    assert all((out / "a" / name).read_bytes() == whole(name) for name in RESULTS)


def test_a_micro_batch_without_end_is_interrupted_and_the_last_snapshot_counts(
    tmp_path: Path, config: RunConfig, whole: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    spec = plan(out, replace(config, snapshot_every=4))
    at_frame(6, monkeypatch, sigterm, lambda: time.sleep(120))
    monkeypatch.setattr(preemption, "PATIENCE_S", 0.1)
    work_until_terminated(spec, 0)
    assert next_frame(out / "a" / "snapshot.safetensors") == "4"
    assert not (out / "a" / "ytvis.json").exists(), "there is no time for exports"
    work(spec, 0)
    assert all((out / "a" / name).read_bytes() == whole(name) for name in RESULTS)


def test_a_task_that_ray_cancels_saves_its_state_too(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    spec = plan(out, config)
    before = signal.getsignal(signal.SIGINT)
    at_frame(6, monkeypatch, _thread.interrupt_main)  # what ray.cancel does in the process of the task
    work_until_canceled(spec, 0)
    assert next_frame(out / "a" / "snapshot.safetensors") == "8"
    assert signal.getsignal(signal.SIGINT) is before, "the process does other tasks later"


@pytest.mark.extras
def test_the_state_in_object_storage_is_that_of_the_frame_just_done_however_long_its_upload_takes(
    there: Bucket, tmp_path: Path, config: RunConfig, whole: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, timers = Storage.upload, list[float]()

    def long_upload(self: Storage, path: Path, name: str) -> None:
        if timers and timers[-1] > 0:
            raise OutOfTime
        upload(self, path, name)

    monkeypatch.setattr(preemption, "_interrupt_after", timers.append)
    monkeypatch.setattr(Storage, "upload", long_upload)
    at_frame(6, monkeypatch, sigterm)
    for machine in ("one machine", "another machine"):
        monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / machine))
        with RemoteBatch("s3://bucket/out", tmp_path / "records").claimed():
            spec = plan(tmp_path / "records", config)
            work_until_terminated(spec, 0)
        if machine == "one machine":
            assert timers[0] == preemption.PATIENCE_S
            index = json.loads(there.get("out/a/.resume/index.json"))
            (tmp_path / "snapshot").write_bytes(there.get(f"out/a/.resume/{index['snapshot']}"))
            assert next_frame(tmp_path / "snapshot") == "8"
            assert not {"out/a/masks.jsonl", "out/a/ytvis.json"} & there.names()
    assert all(there.get(f"out/a/{name}") == whole(name) for name in RESULTS)
