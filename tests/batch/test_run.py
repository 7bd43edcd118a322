from __future__ import annotations

import csv
import json
import multiprocessing
import os
import urllib.request
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import batch_toys
import paths
from batch_toys import LOADERS, ThreadEngine, ToldTracker, finished, make_clip, make_mask, result_of
from streams import Loopback, http, transport_stream
from vidseg.config import RunConfig
from vidseg.errors import OutputError, UsageError, WeightsError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import read_journal
from vidseg.outputs.folder import claimed
from vidseg.types import Frame, Tracks, VideoInfo
from vidseg_pipelines.batch import executors, supervisor
from vidseg_pipelines.batch import limits as limits_module
from vidseg_pipelines.batch.executors.local import LocalEngine
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.job_records import Job, Result
from vidseg_pipelines.batch.leases import Owner
from vidseg_pipelines.batch.limits import VideoLimits, VideoWatch
from vidseg_pipelines.batch.metrics import serving
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.batch.worker import MAX_DEATHS, WorkerSpec, work
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands import batch as batch_command
from vidseg_pipelines.commands.batch import BatchCommand, run_batch
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_summary import RunSummary


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return make_mask(tmp_path / "first.png")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def base(mask: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        mask=(str(mask),),
        save="davis,ytvis",
        refine="box",
        snapshot_every=4,
        tracker_options={"log": str(tmp_path / "log")},
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def command(base: RunConfig, **settings: Any) -> BatchCommand:
    return BatchCommand(**{**vars(base), **settings})


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def results(folder: Path) -> dict[str, bytes]:
    files = [folder / "masks.jsonl", folder / "ytvis.json", *(folder / "davis").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def plan(out: Path, video: Path | str, base: RunConfig, **how: bool) -> tuple[BatchRecords, Job, WorkerSpec]:
    store, (job,), call = batch_toys.plan(out, expand([str(video)], base), **how)
    return store, job, WorkerSpec(store.folder, call, loaders=LOADERS)


def test_ten_videos_three_of_them_hostile(
    tmp_path: Path, base: RunConfig, out: Path, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(batch_command, "run_batch", partial(run_batch, loaders=LOADERS))
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(7):
        make_clip(videos / f"good{number}.mp4")
    (videos / "text.mp4").write_text("hello, I am no video\n" * 50)
    (videos / "empty.mp4").touch()
    (videos / "list.mp4").write_text(f"ffconcat version 1.0\nfile {videos}/good0.mp4\n")
    (tmp_path / "c.yaml").write_text(
        f"mask: {base.mask[0]}\nrefine: box\nsave: ytvis\nworkers: 2\ntracker_options: {{log: {log}}}\n"
    )
    args = ["batch", str(videos), "--output", str(out), "--config", str(tmp_path / "c.yaml")]

    assert main(args) == 5
    printed = capsys.readouterr()
    assert "10 videos: 7 done, 3 failed" in printed.out
    assert "[10/10]" in printed.err
    rows = table(out)
    assert Counter(row["status"] for row in rows.values()) == {"done": 7, "failed": 3}
    for name in ("text", "empty", "list"):
        assert f"{name}.mp4" in rows[name]["reason"]
        assert rows[name]["reason"] in (out / "summary.html").read_text().replace("&#x27;", "'").replace("&quot;", '"')
    assert (rows["good3"]["frames"], rows["good3"]["objects"], rows["good3"]["attempts"]) == ("6", "2", "1")
    assert results_ok(out, 7)
    numbers = [{e["video_id"] for e in json.loads(path.read_text())} for path in out.glob("good*/ytvis.json")]
    assert len(set.union(*numbers)) == len(numbers) == 7, "the files can be put together"
    lines = Counter(log.read_text().splitlines())
    loads = [line for line in lines if line.endswith(" loads")]
    assert 1 <= len(loads) <= 2  # workers
    assert all(count == 1 for count in lines.values())  # one load per worker; no frame twice
    assert len(lines) - len(loads) == 7 * 6

    log.unlink()
    assert main(args) == 5  # nothing is done again, no worker is started
    assert "7 of 10 videos were done before, 3 had failed (--retry-failed tries again)" in capsys.readouterr().err
    assert not log.exists()

    make_clip(videos / "text.mp4")
    make_clip(videos / "new.mp4")
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    assert main([*args, "--retry-failed", "--workers", "1"]) == 5
    assert "11 videos: 9 done, 2 failed" in capsys.readouterr().out
    done = {line.split()[1] for line in log.read_text().splitlines()}
    assert done == {"loads", "text", "new"}

    assert main(["batch", "status", str(out)]) == 5
    text = capsys.readouterr().out
    assert "11 videos: 9 done, 2 failed" in text
    assert f"failed   empty: {videos / 'empty.mp4'}" in text
    assert main(["batch", "status", str(out), "--json"]) == 5
    status = json.loads(capsys.readouterr().out)
    assert (status["counts"], len(status["videos"])) == ({"done": 9, "failed": 2}, 11)


def results_ok(out: Path, count: int) -> bool:
    frames = [len(list(read_journal(path))) for path in out.glob("*/masks.jsonl")]
    return frames == [6] * count


def test_the_job_of_a_killed_worker_is_resumed_by_another(
    tmp_path: Path, base: RunConfig, out: Path, log: Path
) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4", 14) for name in "ab"]
    once = tmp_path / "died"
    how = {"once": str(once), "die_at": 10, "after": str(out / "a" / "snapshot.safetensors")}
    told = replace(base, tracker_options={**base.tracker_options, **how})
    settings = {"inputs": tuple(map(str, clips)), "output": out, "workers": 1}
    assert run_batch(command(told, **settings), loaders=LOADERS) == 0
    assert once.exists()
    rows = table(out)
    assert (rows["a"]["attempts"], rows["b"]["attempts"]) == ("2", "1")
    steps = [line.split() for line in log.read_text().splitlines() if " a " in line]
    by_worker = {pid: [int(index) for p, _, index in steps if p == pid] for pid, _, _ in steps}
    first, second = by_worker.values()
    assert first == list(range(11))
    assert second in (list(range(4, 14)), list(range(8, 14)))  # from the last snapshot
    assert rows["a"]["worker"].endswith(f":{list(by_worker)[1]}")
    run_video(replace(told, input=str(clips[0]), output=tmp_path / "whole"), loaders=LOADERS)
    assert results(out / "a") == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("devices", "asked", "given"),
    [
        (2, "auto", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", ["cuda:1"] * 3),
        (2, "cpu", ["cpu"] * 3),
        (0, "auto", ["auto"] * 3),
    ],
)
def test_cuda_devices_are_given_out_in_turn(
    out: Path, devices: int, asked: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[WorkerSpec] = []

    class Process:
        def __init__(self, args: tuple[WorkerSpec, int], **how: Any) -> None:
            started.append(args[0])

        def start(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    engine = LocalEngine({})
    monkeypatch.setattr(engine, "_context", SimpleNamespace(Process=Process))
    engine.start([WorkerSpec(out, "call", device=asked)] * 3, 0)
    assert [spec.device for spec in started] == given


def test_a_stopped_batch_goes_on(tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "a.mp4", 2)
    make_clip(tmp_path / "b.mp4", 30)  # a minute: the interrupt comes before its end
    once = tmp_path / "once"
    slow = replace(base, tracker_options={**base.tracker_options, "slow": 2, "once": str(once)}, batch=1)
    settings = command(slow, inputs=(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")), output=out, workers=1)

    def interrupt(self: object, row: object) -> None:
        raise KeyboardInterrupt  # Ctrl-C when the first has ended

    with monkeypatch.context() as patch:
        patch.setattr("vidseg_pipelines.commands.batch._Log.ended", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_batch(settings, loaders=LOADERS)
    rows = table(out)
    assert (rows["a"]["status"], rows["b"]["status"], rows["b"]["worker"]) == ("done", "waiting", "")
    # In an orderly way, not killed.
    assert [(row["status"], row["deaths"]) for row in BatchRecords(out).rows()] == [("done", 0), ("waiting", 0)]
    once.touch()
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    assert run_batch(settings, loaders=LOADERS) == 0
    assert table(out)["b"]["frames"] == "30"


def test_calls_that_begin_and_end_together_share_the_work(
    tmp_path: Path, base: RunConfig, out: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)
    clips = tuple(str(make_clip(tmp_path / f"{name}.mp4", 3)) for name in "abcd")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)

    def call() -> None:
        barrier.wait()
        os._exit(run_batch(command(base, inputs=clips, output=out, workers=1), loaders=LOADERS))

    calls = [context.Process(target=call) for _ in range(2)]
    for process in calls:
        process.start()
    for process in calls:
        process.join(300)
    assert [process.exitcode for process in calls] == [0, 0]
    assert [(name, row["status"]) for name, row in table(out).items()] == [(name, "done") for name in "abcd"]
    frames = Counter(line.partition(" ")[2] for line in log.read_text().splitlines() if not line.endswith("loads"))
    assert frames == Counter(f"{name} {index}" for name in "abcd" for index in range(3))  # none twice
    assert not list(out.rglob("*.part"))


def test_a_job_that_kills_its_workers_fails(tmp_path: Path, base: RunConfig, out: Path) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    for _ in range(MAX_DEATHS):
        store.take_job(job.key, replace(Owner.this_process("call", 0), born="1"))
    work(spec, 0)
    result = result_of(store, job)
    assert (result.status, result.reason) == ("failed", "3 workers died while they were at it (killed, out of memory?)")
    _, _, spec = plan(out, job.config.input, base, retry_failed=True)
    work(spec, 0)
    result = result_of(store, job)
    assert (result.status, result.attempts) == ("done", 1)  # what was before does not count


def test_results_outlive_the_failure_and_the_repetition_of_others(tmp_path: Path, base: RunConfig, out: Path) -> None:
    clips = [make_clip(tmp_path / place / "clip.mp4") for place in "ab" if (tmp_path / place).mkdir() is None]
    beyond = replace(base, frames="100:", mask=(f"100:{base.mask[0]}",))
    store, bad, spec = plan(out, clips[0], beyond)
    work(spec, 0)
    _, good, spec = plan(out, clips[1], base)
    work(spec, 0)
    assert [result_of(store, job).status for job in (bad, good)] == ["failed", "done"]
    there = results(out / good.name)
    for how in ({"retry_failed": True}, {"overwrite": True}):
        _, again, spec = plan(out, clips[0], beyond, **how)
        work(spec, 0)
        assert (again.name, result_of(store, again).status) == ("clip", "failed")
        assert results(out / good.name) == there


def test_jobs_in_other_hands_are_left_alone(tmp_path: Path, base: RunConfig, out: Path, log: Path) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    taken = store.take_job(job.key, Owner.this_process("other", 0))
    assert taken is not None
    with store.lease(taken):
        work(spec, 0)
        assert not log.exists()
        with pytest.raises(UsageError, match="is being made by another"):
            plan(out, job.config.input, base, overwrite=True)
    work(spec, 0)
    assert finished(store) == {job.key}


def test_an_unexpected_error_fails_alone_and_keeps_its_traceback(
    tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    monkeypatch.setattr(batch_toys.ToldTracker, "step", lambda *a: 1 / 0)
    work(spec, 0)
    result = result_of(store, job)
    assert result.status == "failed"
    assert result.reason.startswith("internal error: ZeroDivisionError: division by zero (traceback: ")
    assert "1 / 0" in (store.root / "errors" / f"{job.key}.txt").read_text()


@pytest.mark.parametrize(
    ("error", "workers"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), 2),
        (torch.OutOfMemoryError("CUDA out of memory"), 1),
    ],
)
def test_a_worker_whose_device_is_lost_makes_room_for_another(
    tmp_path: Path, base: RunConfig, out: Path, error: Exception, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, started = ToldTracker.step, []

    def failing_step(self: ToldTracker, frame: Frame, *prompts: Any) -> list[Tracks]:
        if self.name == "b":
            raise error
        return step(self, frame, *prompts)

    class Engine(ThreadEngine):
        def start(self, specs: Sequence[WorkerSpec], first: int) -> list[batch_toys.ThreadWorker]:
            started.append(first)
            return super().start(specs, first)

    monkeypatch.setattr(ToldTracker, "step", failing_step)
    monkeypatch.setattr(executors, "make_engine", lambda *a: Engine())
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)
    clips = tuple(str(make_clip(tmp_path / f"{name}.mp4", 2)) for name in "abc")
    assert run_batch(command(base, inputs=clips, output=out, workers=1), loaders=LOADERS) == 5
    assert [row["status"] for row in table(out).values()] == ["done", "failed", "done"]
    assert str(error) in table(out)["b"]["reason"]
    assert len(started) == workers


def test_a_video_is_forgotten_before_the_next(
    tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose error holds on to the frames where it happened."""
    frames: list[weakref.ref[Any]] = []
    alive: list[int] = []
    start, step = ToldTracker.start, ToldTracker.step

    def counting_start(self: ToldTracker, video: VideoInfo) -> None:
        alive.append(sum(frame() is not None for frame in frames))
        start(self, video)

    def failing_step(self: ToldTracker, frame: Frame, *prompts: Any) -> list[Tracks]:
        frames.append(weakref.ref(frame.rgb))
        if self.name == "b":
            raise RuntimeError("it went wrong")
        return step(self, frame, *prompts)

    monkeypatch.setattr(ToldTracker, "start", counting_start)
    monkeypatch.setattr(ToldTracker, "step", failing_step)
    for name in "abc":
        make_clip(tmp_path / f"{name}.mp4", 3)
    store, jobs, call = batch_toys.plan(out, expand([str(tmp_path / f"{n}.mp4") for n in "abc"], base))
    work(WorkerSpec(store.folder, call, loaders=LOADERS), 0)
    assert [result_of(store, job).status for job in jobs] == ["done", "failed", "done"]
    assert (len(frames), alive) == (7, [0, 0, 0])


def test_damaged_videos_are_done_in_part(tmp_path: Path, base: RunConfig, out: Path) -> None:
    clip = make_clip(tmp_path / "a.ts", 40)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    store, job, spec = plan(out, clip, base)
    work(spec, 0)
    result = result_of(store, job)
    assert result.status in ("partial", "done") and 0 < result.frames < 40
    assert (result.status == "partial") == bool(result.reason)


def test_a_changed_or_lost_video_is_noticed(tmp_path: Path, base: RunConfig, out: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    store, job, spec = plan(out, clip, base)
    work(spec, 0)
    make_clip(clip, 9)
    with pytest.raises(UsageError, match=r"was made of another file of that name \(input.bytes"):
        plan(out, clip, base)
    make_clip(clip)
    plan(out, clip, base)
    clip.unlink()
    plan(out, clip, base)
    assert finished(store) == {job.key}  # done is done
    mask = Path(base.mask[0])
    mask.write_bytes(mask.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"\(prompts\."):
        plan(out, clip, base)
    mask.unlink()
    plan(out, clip, base)
    (out / "a" / "run.json").unlink()
    plan(out, clip, base)
    assert finished(store) == set()


def test_live_sources_fail_alone(tmp_path: Path, base: RunConfig, out: Path) -> None:
    body = transport_stream(tmp_path, range(8))
    with Loopback(http(body), http(body)) as server:
        url = "http://" + server.url.rpartition("@")[2].partition("?")[0]  # without secrets
        store, job, spec = plan(out, url, base)
        work(spec, 0)
    assert "a live source has no end" in result_of(store, job).reason


def test_missing_weights_stop_everything(
    tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    clips = tuple(str(make_clip(tmp_path / f"{name}.mp4", 2)) for name in "ab")
    broken = replace(LOADERS, sam=batch_toys.no_weights)
    with pytest.raises(WeightsError, match="compact: the file is damaged"):
        run_batch(command(base, inputs=clips, output=out), loaders=broken)
    assert [row["status"] for row in table(out).values()] == ["waiting", "waiting"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": None}, "--output DIR is required"),
        ({"inputs": ()}, "no videos given"),
        ({"workers": -1}, "--workers -1"),
        ({"lease_timeout": 0.0}, "--lease-timeout 0"),
        ({"lease_timeout": float("nan")}, "--lease-timeout nan"),
        ({"resume": True}, "always resumes"),
        ({"tracker": "xmen"}, "did you mean 'xmem'"),
        ({"engine_option": ("mem_gb",)}, "KEY=VALUE"),
        ({"engine_option": ("mem_gb=[",)}, "KEY=VALUE"),
        ({"engine_option": ("mem_gb=3",)}, "the local engine has no options"),
    ],
)
def test_wrong_settings(base: RunConfig, out: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_batch(command(base, **{"inputs": ("a.mp4",), "output": out, **settings}))


def test_status_shows_how_far_running_jobs_are(
    tmp_path: Path, base: RunConfig, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, jobs, _ = batch_toys.plan(out, expand([str(tmp_path / f"{name}.mp4") for name in "abc"], base))
    me = Owner.this_process("call", 0)
    store.finish(jobs[0].key, Result("done", seconds=8.0, frames=16))
    taken = store.take_job(jobs[1].key, me)
    assert taken is not None
    with store.database.writing() as db:
        db.execute("UPDATE jobs SET begun=100, beat=110, frames=20, total=80 WHERE key=?", (jobs[1].key,))
    monkeypatch.setattr(BatchRecords, "now", lambda self: 113.0)
    assert main(["batch", "status", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 videos: 1 done, 1 running, 1 waiting; about 16 s left",
        f"running  b: {me}, 20/80 frames, 2.0 fps, 27 s left, heartbeat 3 s ago",
    ]
    assert main(["batch", "status", str(out), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["status"], row["frames"], row["fps"], row["left_s"]) for row in status["videos"]] == [
        ("a", "done", 16, 2.0, None),
        ("b", "running", 20, 2.0, 27.0),
        ("c", "waiting", 0, 0.0, None),
    ]
    assert (status["counts"], status["left_s"]) == ({"done": 1, "running": 1, "waiting": 1}, 16.0)


def test_prometheus_reads_the_records(tmp_path: Path, base: RunConfig, out: Path) -> None:
    pytest.importorskip("prometheus_client")
    store, jobs, _ = batch_toys.plan(out, expand([str(tmp_path / f"{name}.mp4") for name in "ab"], base))
    with serving(store, 0) as port:
        store.finish(jobs[0].key, Result("done", seconds=8.0, frames=16))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
    for line in (
        'vidseg_batch_videos{status="done"} 1.0',
        'vidseg_batch_videos{status="waiting"} 1.0',
        'vidseg_batch_frames_total{status="done"} 16.0',
        'vidseg_batch_seconds_total{status="done"} 8.0',
        "vidseg_batch_oldest_heartbeat_seconds 0.0",
    ):
        assert line in lines


def test_all_masks_of_a_batch_are_a_few_parquet_files(
    tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    clips = tuple(str(make_clip(tmp_path / f"{name}.mp4", 3)) for name in "abc")
    (tmp_path / "text.mp4").write_text("no video")
    (out / "parquet").mkdir(parents=True)
    (out / "parquet" / "part-00009.parquet").write_text("of an earlier call")
    inputs = (*clips, str(tmp_path / "text.mp4"))
    settings = command(base, inputs=inputs, output=out, workers=1, parquet_rows=7, save="none")
    assert run_batch(settings, loaders=LOADERS) == 5
    files = sorted((out / "parquet").iterdir())
    assert [path.name for path in files] == ["part-00000.parquet", "part-00001.parquet"]
    rows = duckdb.sql(
        f"SELECT video, frame, id, rle, parse_filename(filename, true) FROM read_parquet('{out}/parquet/*.parquet',"
        " filename=true) ORDER BY ALL"
    ).fetchall()
    expected = [
        (name, masks.frame_index, object_id, rle.counts.decode())
        for name in "abc"
        for masks in read_journal(out / name / "masks.jsonl")
        for object_id, rle in zip(masks.ids, masks.rles, strict=True)
    ]
    assert [row[:4] for row in rows] == sorted(expected)
    assert {row[0]: row[4] for row in rows} == {"a": "part-00000", "b": "part-00000", "c": "part-00001"}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (VideoLimits(seconds=1e-6), "took longer than --video-timeout 1e-06 s"),
        (VideoLimits(gigabytes=1e-6), "GiB, more than --video-memory 1e-06"),
    ],
)
def test_a_video_beyond_a_limit_fails_alone(
    tmp_path: Path, base: RunConfig, out: Path, limits: VideoLimits, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = VideoWatch.advance

    def checked_advance(self: VideoWatch, results: Sequence[FrameMasks]) -> None:
        self.check()  # as the thread does every second
        advance(self, results)

    monkeypatch.setattr(VideoWatch, "advance", checked_advance)
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4", 2), base)
    work(replace(spec, limits=limits), 0)
    assert (result_of(store, job).status, reason in result_of(store, job).reason) == ("failed", True)


def test_a_stuck_video_is_given_up_with_its_worker(tmp_path: Path, base: RunConfig, out: Path) -> None:
    store, job, spec = plan(out, tmp_path / "a.mp4", base)
    taken = store.take_job(job.key, Owner.this_process(spec.call, 0))
    assert taken is not None
    pid = os.fork()
    if pid == 0:
        end = replace(Result("failed"), attempts=1)
        watch = VideoWatch(
            VideoLimits(seconds=1e-6), lambda: False, lambda reason: store.finish(job.key, replace(end, reason=reason))
        )
        limits_module.GRACE_S = 0.0
        for _ in range(3):
            watch.check()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert result_of(store, job).reason == (
        "took longer than --video-timeout 1e-06 s, and did not come to its next frame"
    )


def test_a_batch_of_an_earlier_version_is_refused_in_one_line(out: Path, base: RunConfig) -> None:
    (out / ".batch" / "jobs").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"a batch of vidseg 0\.1.*use another --output"):
        run_batch(command(base, inputs=("a.mp4",), output=out))


def test_status_of_no_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "status", str(tmp_path)]) == 3
    assert "no batch was started there" in capsys.readouterr().err


@pytest.mark.parametrize("takes_a_job", [False, True])
def test_workers_that_cannot_work_are_not_started_for_ever(
    base: RunConfig, out: Path, takes_a_job: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not takes_a_job:
        monkeypatch.setattr(batch_toys, "work", lambda *a: None)
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    with pytest.raises(OutputError, match="workers end without having ended a job"):
        run_batch(command(base, inputs=("a.mp4",), output=out), loaders=replace(LOADERS, sam=batch_toys.crash))


def test_a_job_of_another_version_fails_alone(tmp_path: Path, base: RunConfig, out: Path) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    with store.database.writing() as db:
        db.execute("UPDATE settings SET config=replace(config, '\"refine\"', '\"polish\"')")
    work(spec, 0)
    assert "another version of vidseg" in result_of(store, job).reason


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_missing_extras_are_named(base: RunConfig, out: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"ray": "ray", "slurm": "submitit"}[engine]
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=rf"pip install 'vidseg\[{engine}\]'"):
        run_batch(command(base, inputs=("a.mp4",), output=out, engine=engine))


@pytest.mark.extras
def test_workers_of_a_job_array(tmp_path: Path, base: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(paths.HELPERS), prepend=os.pathsep)
    clips = [make_clip(tmp_path / f"{name}.mp4") for name in "ab"]
    (tmp_path / "c.mp4").write_text("no video")
    rows = [{"input": path.name} for path in [*clips, tmp_path / "c.mp4"]]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ("cluster=local", "timeout_min=5")
    settings = {"inputs": (str(tmp_path / "jobs.jsonl"),), "output": out, "workers": 1, "engine_option": options}
    assert run_batch(command(base, engine="slurm", **settings), loaders=LOADERS) == 5
    assert [row["status"] for row in table(out).values()] == ["done", "done", "failed"]
    assert results_ok(out, 2)


def test_the_lock_of_a_worker_that_died_with_its_machine_is_waited_for(
    tmp_path: Path, base: RunConfig, out: Path
) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    with store.database.writing() as db:
        db.execute("UPDATE jobs SET deaths=1")
    lock = ExitStack()

    def segment(*args: Any, **more: Any) -> RunSummary:
        try:
            return run_video(*args, **more)
        except UsageError:
            lock.close()  # nobody renews it
            raise

    with lock:
        lock.enter_context(claimed(out / "a"))
        work(replace(spec, segment=segment), 0)
    assert result_of(store, job).status == "done"


def test_a_folder_that_another_run_writes_to_fails_alone(tmp_path: Path, base: RunConfig, out: Path) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    with claimed(out / "a"):
        work(spec, 0)
        assert "is in use by another run" in result_of(store, job).reason
        with pytest.raises(UsageError, match="is in use by another run"):
            plan(out, job.config.input, base, overwrite=True)
    assert result_of(store, job).status == "failed"  # as before
    _, _, spec = plan(out, job.config.input, base, retry_failed=True)
    work(spec, 0)
    assert result_of(store, job).status == "done"


def test_an_overwrite_never_removes_what_it_reads(tmp_path: Path, base: RunConfig, out: Path) -> None:
    store, job, spec = plan(out, make_clip(tmp_path / "a.mp4"), base)
    work(spec, 0)
    before = results(out / "a")
    corrected = replace(base, mask=(str(out / "a" / "davis" / "00000.png"),))
    with pytest.raises(UsageError, match=r"00000\.png is an input and would be overwritten by .*davis"):
        plan(out, job.config.input, corrected, overwrite=True)
    assert results(out / "a") == before
    assert finished(store) == {job.key}
