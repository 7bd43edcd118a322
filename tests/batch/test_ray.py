"""Ray's own cluster of several nodes on this machine, of which nodes die; and what its actors do, without Ray."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import batch_toys
import paths
from batch_toys import LOADERS, make_clip, make_mask
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg_pipelines.batch.ray import Attempts, VideoMapper, map_videos
from vidseg_pipelines.batch.worker import MAX_DEATHS
from vidseg_pipelines.commands.batch import BatchCommand, run_batch
from vidseg_pipelines.run import run_video

NAMES = "abc"
FRAMES = 14


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that takes no work: nodes for that can be killed."""
    pytest.importorskip("ray.data")
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(paths.HELPERS), prepend=":")
        patch.setenv("RAY_worker_niceness", "0")  # by default Ray's workers give way to everything else
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A node counts as dead after some 2 s without an answer instead of 15.
        health = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
        }
        head = {"num_cpus": 1, "resources": {"head": 1}, "_system_config": health, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        patch.setenv("RAY_ADDRESS", made.address)
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> list[Any]:
    """The two nodes that work."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1, resources={"work": 1})
    return list(cluster.worker_nodes)


@pytest.fixture
def base(tmp_path: Path) -> RunConfig:
    """Settings of videos that end when the file ``no`` is there."""
    options = {"log": str(tmp_path / "log"), "wait_at": 9, "once": str(tmp_path / "no")}
    mask = str(make_mask(tmp_path / "first.png"))
    return RunConfig(mask=(mask,), save="ytvis", refine="box", snapshot_every=4, batch=1, tracker_options=options)


class NodeKiller(threading.Thread):
    """Ends, without a word, the node that is at a video as soon as that has a state from which it can go on."""

    def __init__(self, cluster: Any, nodes: list[Any], folder: Path) -> None:
        super().__init__()
        self.cluster, self.nodes, self.folder = cluster, nodes, folder
        self.video = ""

    def run(self) -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            for path in self.folder.glob("out/*/snapshot.safetensors"):
                self.video = path.parent.name
                worker = psutil.Process(self.attempts()[-1][0])
                worker.suspend()  # Ray's workers outlive their node for a moment: this one must not end the video in it
                ancestors = {process.pid for process in worker.parents()}
                (node,) = [n for n in self.nodes if n.all_processes["raylet"][0].process.pid in ancestors]
                self.cluster.remove_node(node, allow_graceful=False)
                worker.kill()
                (self.folder / "no").touch()  # the others go on
                return
            time.sleep(0.05)

    def attempts(self) -> list[tuple[int, int]]:
        """At the video: the processes, in turn, and the first frame of each."""
        first: dict[int, int] = {}
        for line in (self.folder / "log").read_text().splitlines():
            pid, name, *frame = line.split()
            if name == self.video:
                first.setdefault(int(pid), int(frame[0]))
        return list(first.items())


def check(killer: NodeKiller, base: RunConfig) -> None:
    """Another process went on with the video of the killed node from its state, and every video is as without that."""
    (_, first), (_, second) = killer.attempts()
    assert (first, second > 0) == (0, True)
    folder = killer.folder
    run_video(replace(base, input=str(folder / "a.mp4"), output=folder / "whole"), loaders=LOADERS)
    for name in NAMES:
        assert (folder / "out" / name / "masks.jsonl").read_bytes() == (folder / "whole/masks.jsonl").read_bytes()


@pytest.mark.extras
def test_a_node_is_killed_in_the_middle_of_a_batch(
    tmp_path: Path, base: RunConfig, cluster: Any, nodes: list[Any]
) -> None:
    clips = tuple(str(make_clip(tmp_path / f"{name}.mp4", FRAMES)) for name in NAMES)
    (tmp_path / "text.mp4").write_text("no video")
    inputs, options = (*clips, str(tmp_path / "text.mp4")), ("num_cpus=1", "resources={work: 1}")
    how = {"inputs": inputs, "output": tmp_path / "out", "engine": "ray", "workers": 2, "engine_option": options}
    killer = NodeKiller(cluster, nodes, tmp_path)
    killer.start()
    try:
        assert run_batch(BatchCommand(**{**vars(base), **how}), loaders=LOADERS) == 5
    finally:
        killer.join()
    with (tmp_path / "out/summary.csv").open(newline="") as file:
        rows = {row["name"]: (row["status"], row["frames"], row["attempts"]) for row in csv.DictReader(file)}
    done = {name: ("done", str(FRAMES), "2" if name == killer.video else "1") for name in NAMES}
    assert rows == {**done, "text": ("failed", "0", "1")}
    check(killer, base)


@pytest.mark.extras
def test_a_node_is_killed_in_the_middle_of_a_dataset(
    tmp_path: Path, base: RunConfig, cluster: Any, nodes: list[Any]
) -> None:
    import ray

    if not ray.is_initialized():
        ray.init(logging_level="ERROR")
    for name in NAMES:
        make_clip(tmp_path / f"{name}.mp4", FRAMES)
    (tmp_path / "bad.mp4").write_text("no video")
    rows = [{"input": str(tmp_path / f"{name}.mp4"), "day": 1} for name in (*NAMES, "bad")]
    videos = ray.data.from_items(rows, override_num_blocks=len(rows))
    actors = {"concurrency": 2, "num_cpus": 0.5, "resources": {"work": 0.5}}  # both fit on the node that is left
    results = map_videos(videos, base, output=tmp_path / "out", loaders=LOADERS, **actors)
    killer = NodeKiller(cluster, nodes, tmp_path)
    killer.start()
    try:
        done = {Path(row["folder"]).name: row for row in results.take_all()}
    finally:
        killer.join()
    short = {name: (row["status"], row["frames_done"], row["objects"], row["day"]) for name, row in done.items()}
    assert short == {**dict.fromkeys(NAMES, ("done", FRAMES, 2, 1)), "bad": ("failed", 0, 0, 1)}
    assert "bad.mp4: not a video" in done["bad"]["reason"]
    assert not list((tmp_path / "out/.attempts").iterdir())
    check(killer, base)


@pytest.fixture
def actor(tmp_path: Path) -> VideoMapper:
    make_clip(tmp_path / "a.mp4")
    mask = str(make_mask(tmp_path / "first.png"))
    config = RunConfig(mask=(mask,), refine="box", save="none", tracker_options={"log": str(tmp_path / "log")})
    return VideoMapper(config, str(tmp_path / "out"), str(tmp_path), LOADERS)


def test_a_row_is_read_as_that_of_a_manifest(actor: VideoMapper, tmp_path: Path) -> None:
    row = {"input": "a.mp4", "output": "x", "frames": "1:5", "max_objects": np.float64("nan"), "box": "", "mask": None}
    done = actor({**row, "mask": "1:first.png;3:first.png", "more": 7})
    assert (done["status"], done["frames_done"], done["more"], done["reason"]) == ("done", 4, 7, "")
    assert done["folder"] == str(tmp_path / "out/x")
    assert "max_objects: expected an int" in actor({"input": "a.mp4", "max_objects": "many"})["reason"]
    assert "'input' (a video)" in actor({"output": "y"})["reason"]


def test_a_video_that_is_done_is_not_done_again(actor: VideoMapper, tmp_path: Path) -> None:
    first = actor({"input": "a.mp4"})
    steps = (tmp_path / "log").read_text()
    again = actor({"input": "a.mp4"})
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert (tmp_path / "log").read_text() == steps


def test_a_video_at_which_actors_died_again_and_again_has_failed(actor: VideoMapper, tmp_path: Path) -> None:
    for number in range(MAX_DEATHS):
        assert Attempts(tmp_path / "out", "a").begin() == number  # and dies
    failed = actor({"input": "a.mp4"})
    assert (failed["status"], failed["reason"][:13]) == ("failed", f"{MAX_DEATHS} actors died")
    assert actor({"input": "a.mp4"})["status"] == "done"  # asked for again, it is tried again


def test_an_actor_that_lost_its_device_ends_before_the_next_video(
    actor: VideoMapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*args: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(batch_toys.ToldTracker, "step", lose)
    monkeypatch.setattr("os._exit", end)
    assert "internal error: RuntimeError: CUDA error" in actor({"input": "a.mp4"})["reason"]
    with pytest.raises(SystemExit):
        actor({"input": "a.mp4"})


def test_wrong_settings_are_refused_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch"):
        map_videos(None, RunConfig(batch=0), output=tmp_path)
