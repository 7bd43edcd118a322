"""What a batch costs beyond its videos: engines and numbers of workers, against one `vidseg run` per video.

    python benchmarks/batch.py VIDEO [--videos 8] [--frames :16] [--engines run,local,ray,slurm] [--workers 1,2]
    python benchmarks/batch.py VIDEO --kill 0.1 [--videos 8] [--frames :16] [--workers 2]
    python benchmarks/batch.py --no-op 1000,10000,100000 [--workers 1] [--kill 0.1]
    python benchmarks/batch.py --hand-out 1000,10000,100000

The batch gets links to VIDEO under several names. `run` starts a process per video, one after the other; `slurm` is
submitit's local executor, so that no cluster is needed. Work is what the jobs themselves took. With `--kill` workers at
a video are killed at random moments, one per so many videos (at least one), and the results are compared with those of
one `vidseg run`.

`--no-op` runs as many jobs that do nothing through the real machinery: a manifest with a row per job, folders, records,
worker processes, summary. Planning has a process of its own, whose memory is printed. The time per job is that of one
worker from the first job taken to the last one ended, without the seconds in which a process imports torch. `--kill`
is the share of jobs, chosen at random, at which the worker is killed once. `--hand-out` measures the records alone: one
process takes every job and records its end, as a worker of two does; and for comparison a message with a job to another
process, and its answer.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from vidseg.config import RunConfig
from vidseg.types import Gap
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.batch.job_records import Result
from vidseg_pipelines.batch.jobs import plan_jobs
from vidseg_pipelines.batch.leases import Owner
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.commands.batch import BatchCommand, run_batch
from vidseg_pipelines.run import Loaders
from vidseg_pipelines.run_summary import RunSummary

ENGINE_OPTIONS = {"local": (), "ray": ("num_cpus=1",), "slurm": ("cluster=local",)}


def batch_seconds(command: BatchCommand, folder: Path) -> tuple[float, float]:
    """(wall seconds, seconds of work of all jobs)."""
    started = time.perf_counter()
    if run_batch(replace(command, output=folder)) != 0:
        raise SystemExit(f"not all jobs were done: see {folder}/summary.csv")
    wall = time.perf_counter() - started
    store = BatchRecords(folder)
    return wall, sum(row["seconds"] for row in store.rows())


def run_seconds(videos: list[Path], frames: str, folder: Path) -> float:
    """Wall seconds of one `vidseg run` after the other."""
    started = time.perf_counter()
    for video in videos:
        words = ["run", str(video), "--frames", frames, "--output", str(folder / video.stem)]
        subprocess.run([sys.executable, "-m", "vidseg", *words], check=True, capture_output=True)
    return time.perf_counter() - started


def no_op(config: RunConfig, **how: object) -> RunSummary:
    """Instead of a video. A job whose name the environment tells kills its worker at the first attempt."""
    assert config.output is not None
    share = float(os.environ.get("VIDSEG_BENCHMARK_KILL", "0"))
    marker = config.output / "died"
    if share and zlib.crc32(config.input.encode()) % 1000 < 1000 * share and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return RunSummary(config.output, "done", 1, (), 1.0, (), (), Gap())


def no_sam(config: RunConfig) -> None:
    """Instead of a network."""


def planning(folder: Path, count: int) -> None:
    """Plan and say what that took; runs in a process of its own."""
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    plan_jobs(BatchRecords(folder / "out"), expand([str(folder / "jobs.csv")], RunConfig()))
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / "planning.json").write_text(json.dumps([took, (peak - before) / 1e6, peak / 1e6]))


def hand_out_line(count: int) -> str:
    """Measure `--hand-out` with so many jobs."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "jobs.csv").write_text("input\n" + "".join(f"clip{number}.mp4\n" for number in range(count)))
        store = BatchRecords(Path(name) / "out")
        call = plan_jobs(store, expand([f"{name}/jobs.csv"], RunConfig()))
        owner, wall, taking, begun = Owner.this_process(call, 0), time.perf_counter(), 0.0, time.process_time()
        while True:
            before = time.process_time()
            taken = store.take(call, owner, (0, 2))
            taking += time.process_time() - before
            if taken is None:
                break
            store.finish(taken.key, Result("done"), taken.attempt)
        cpu, wall = time.process_time() - begun, time.perf_counter() - wall
        take, end, both = (1e3 * seconds / count for seconds in (taking, cpu - taking, wall))
        return (
            f"{count:,} jobs: {take:.2f} ms of CPU to take one, {end:.2f} ms to record its end; {both:.2f} ms in all;"
            f" a message and its answer instead of taking: {message_ms(taken=('0' * 20, 1, 1, 0, 'waiting')):.2f} ms"
        )


def message_ms(taken: tuple[object, ...], count: int = 2000) -> float:
    """CPU time of both processes for a message with a job to another process, and its answer."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=answer, args=(there,))
    process.start()
    begun = time.process_time()
    for _ in range(count):
        here.send(taken)
        here.recv()
    mine = time.process_time() - begun
    here.send(None)
    theirs = here.recv()
    process.join()
    return 1e3 * (mine + theirs) / count


def answer(pipe: Connection) -> None:
    """Send back what comes, until None; then the CPU time that this took."""
    begun = time.process_time()
    while (message := pipe.recv()) is not None:
        pipe.send(message)
    pipe.send(time.process_time() - begun)


def no_op_line(count: int, workers: int) -> str:
    """Measure `--no-op` with so many jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = (f"day{number % 7}/clip{number}.mp4,{number % 9}\n" for number in range(count))
        with (folder / "jobs.csv").open("w") as file:
            file.writelines(["input,max_objects\n", *(row.replace(",0\n", ",9\n") for row in rows)])
        process = multiprocessing.get_context("spawn").Process(target=planning, args=(folder, count))
        process.start()
        process.join()
        took, grown, peak = json.loads((folder / "planning.json").read_text())
        command = BatchCommand(
            inputs=(str(folder / "jobs.csv"),), output=folder / "out", workers=workers, json_log=True
        )
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            code = run_batch(command, loaders=Loaders(sam=no_sam), segment=no_op)  # type: ignore[arg-type]
        with BatchRecords(folder / "out").database.reading() as db:
            seconds = db.execute("SELECT max(beat) - min(begun) FROM jobs").fetchone()[0]
            killed, tries = db.execute("SELECT total(deaths), max(attempts) FROM jobs").fetchone()
        with (folder / "out" / "summary.csv").open(newline="") as file:
            done = {row["name"] for row in csv.DictReader(file) if row["status"] == "done"}
        each = 1e3 * seconds * workers / count
        return (
            f"{count:,} jobs: planning {took:.1f} s, {each:.1f} ms per job"
            f" (planning grew by {grown:.0f} MB to {peak:.0f} MB; {len(done):,} names done in the summary,"
            f" {killed:.0f} workers killed, at most {tries} attempts, exit {code})"
        )


class WorkerKiller(threading.Thread):
    """Kills so many workers, each at a random moment of a random video that runs."""

    def __init__(self, store: BatchRecords, count: int) -> None:
        """``store`` tells which videos run."""
        super().__init__(daemon=True)
        self.store, self.count, self.killed = store, count, 0

    def run(self) -> None:
        """Kill; a video is left alone behind its second death, because the third would make it fail."""
        chance = random.Random(0)
        while self.killed < self.count:
            time.sleep(chance.uniform(0.2, 3.0))
            rows = [row for row in self.store.rows() if row["status"] == "running"] if self.store.exists else []
            rows = [row for row in rows if row["deaths"] < 2 and self.store.is_live(row)]
            if rows and (owner := Owner.read(chance.choice(rows)["owner"])) is not None:
                os.kill(owner.pid, signal.SIGKILL)
                self.killed += 1


def killed_line(videos: list[Path], command: BatchCommand, share: float, folder: Path) -> str:
    """Measure `--kill` with these videos, which are all the same."""
    run_seconds(videos[:1], command.frames, folder / "run")
    killer = WorkerKiller(BatchRecords(folder / "out"), max(1, round(share * len(videos))))
    killer.start()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        code = run_batch(replace(command, output=folder / "out", snapshot_every=4))
    with (folder / "out" / "summary.csv").open(newline="") as file:
        rows = [(row["name"], row["status"], int(row["attempts"])) for row in csv.DictReader(file)]
    expected = (folder / "run" / videos[0].stem / "masks.jsonl").read_bytes()
    same = sum((folder / "out" / name / "masks.jsonl").read_bytes() == expected for name, _, _ in rows)
    done = {name for name, status, _ in rows if status == "done"}
    return (
        f"{len(videos)} videos, {killer.killed} workers killed: {len(rows)} rows, {len(done)} names done,"
        f" {sum(attempts for _, _, attempts in rows)} attempts, {same} with the results of one run, exit {code}"
    )


def main() -> None:
    """Measure and print a row per engine and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--no-op", default="")
    parser.add_argument("--hand-out", default="")
    parser.add_argument("--kill", type=float, default=0.0)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", default=":16")
    parser.add_argument("--engines", default="run,local,ray,slurm")
    parser.add_argument("--workers", default="1,2")
    options = parser.parse_args()
    if options.no_op:
        os.environ["VIDSEG_BENCHMARK_KILL"] = str(options.kill)
        for count in map(int, options.no_op.split(",")):
            print(no_op_line(count, int(options.workers.split(",")[0])), flush=True)
        return
    if options.hand_out:
        for count in map(int, options.hand_out.split(",")):
            print(hand_out_line(count), flush=True)
        return
    if options.video is None:
        parser.error("give a VIDEO, --no-op, or --hand-out")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = [folder / "videos" / f"v{number}{options.video.suffix}" for number in range(options.videos)]
        (folder / "videos").mkdir()
        for video in videos:
            video.symlink_to(options.video.resolve())
        command = BatchCommand(inputs=(str(folder / "videos"),), frames=options.frames, json_log=True)
        if options.kill:
            workers = int(options.workers.split(",")[-1])
            print(killed_line(videos, replace(command, workers=workers), options.kill, folder))
            return
        print("engine  workers  wall s  s/video  work s  wall x workers / work")
        for engine in options.engines.split(","):
            if engine == "run":
                wall = run_seconds(videos, options.frames, folder / "run")
                print(f"run           -  {wall:6.1f}  {wall / len(videos):7.2f}       -")
                continue
            for workers in map(int, options.workers.split(",")):
                how = replace(command, engine=engine, workers=workers, engine_option=ENGINE_OPTIONS[engine])
                wall, work = batch_seconds(how, folder / f"{engine}-{workers}")
                ratio = wall * workers / work
                print(f"{engine:<6}  {workers:>7}  {wall:6.1f}  {wall / len(videos):7.2f}  {work:6.1f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
