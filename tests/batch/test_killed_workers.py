"""Workers die by SIGKILL: every job is done, and once in the summary, with the results of an undisturbed run."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_toys import LOADERS, ToldTracker, make_clip, make_mask, until
from vidseg.config import RunConfig
from vidseg.types import Frame, Gap, Tracks
from vidseg_pipelines.batch import executors, supervisor
from vidseg_pipelines.batch.executors.local import LocalWorker
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.batch.worker import WorkerSpec, work
from vidseg_pipelines.commands.batch import BatchCommand, run_batch
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_summary import RunSummary


class ForkEngine:
    """Workers as processes that begin at once."""

    def start(self, specs: Sequence[WorkerSpec], first: int) -> list[LocalWorker]:
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work, args=(spec, number)) for number, spec in enumerate(specs, first)]
        for worker in workers:
            worker.start()
        return [LocalWorker(worker) for worker in workers]


@pytest.fixture(autouse=True)
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)
    monkeypatch.setattr(executors, "make_engine", lambda *a: ForkEngine())


def die_once(marker: Path) -> None:
    """SIGKILL, the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def table(out: Path) -> list[tuple[str, str, str]]:
    """(name, status, attempts) of every row of the summary."""
    with (out / "summary.csv").open(newline="") as file:
        return [(row["name"], row["status"], row["attempts"]) for row in csv.DictReader(file)]


def test_every_job_is_done_once_wherever_in_it_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, count = tmp_path / "out", 60
    places = ("before", "behind", "recorded")
    killed = dict(zip(random.Random(0).sample(range(count), 6), 2 * places, strict=True))
    finish = BatchRecords.finish

    def no_op(config: RunConfig, **how: Any) -> RunSummary:
        assert config.output is not None
        place = killed.get(int(config.output.name.removeprefix("clip")))
        if place == "before":
            die_once(tmp_path / config.output.name)
        (config.output / "lines").write_text(config.input)
        if place == "behind":
            die_once(tmp_path / config.output.name)
        return RunSummary(config.output, "done", 1, (), 1.0, (), (), Gap())

    def finish_and_die(self: BatchRecords, key: str, *result: Any) -> None:
        finish(self, key, *result)
        name = self.job(key).name
        if killed.get(int(name.removeprefix("clip"))) == "recorded":
            die_once(tmp_path / name)

    monkeypatch.setattr(BatchRecords, "finish", finish_and_die)
    (tmp_path / "jobs.jsonl").write_text("\n".join(json.dumps({"input": f"clip{n}.mp4"}) for n in range(count)))
    settings = BatchCommand(inputs=(str(tmp_path / "jobs.jsonl"),), output=out, workers=4, refine="none")
    assert run_batch(settings, loaders=replace(LOADERS, sam=lambda config: None), segment=no_op) == 0  # type: ignore[arg-type,return-value]
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("clip")]) == len(killed)
    attempts = {f"clip{n}": "2" if killed.get(n) in ("before", "behind") else "1" for n in range(count)}
    assert table(out) == sorted((name, "done", number) for name, number in attempts.items())
    assert all((out / f"clip{n}/lines").read_text() == str(tmp_path / f"clip{n}.mp4") for n in range(count))


def test_videos_whose_workers_were_killed_have_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are killed when the journal holds frames 0 to 2, and the state is that before frame 2."""
    out, killed = tmp_path / "out", {f"clip{n}" for n in random.Random(0).sample(range(6), 2)}
    step = ToldTracker.step

    def step_or_die(self: ToldTracker, frame: Frame, *prompts: Any) -> list[Tracks]:
        if self.name in killed and frame.index == 3:
            assert until(lambda: (out / self.name / "masks.jsonl").read_bytes().count(b"\n") == 3)
            die_once(tmp_path / self.name)
        return step(self, frame, *prompts)

    clips = [make_clip(tmp_path / f"clip{n}.mp4", 5) for n in range(6)]
    base = RunConfig(mask=(str(make_mask(tmp_path / "m.png")),), refine="box", save="davis", snapshot_every=2, batch=1)
    run_video(replace(base, input=str(clips[0]), output=tmp_path / "whole"), loaders=LOADERS)
    monkeypatch.setattr(ToldTracker, "step", step_or_die)
    settings = BatchCommand(**{**vars(base), "inputs": tuple(map(str, clips)), "output": out, "workers": 2})
    assert run_batch(settings, loaders=LOADERS) == 0
    assert table(out) == [(f"clip{n}", "done", "2" if f"clip{n}" in killed else "1") for n in range(6)]
    for n in range(6):
        assert results(out / f"clip{n}") == results(tmp_path / "whole")


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [folder / "masks.jsonl", *(folder / "davis").iterdir()]}
