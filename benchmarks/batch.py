"""What a batch costs beyond its videos: engines and numbers of workers, against one `vidseg run` per video.

    python benchmarks/batch.py VIDEO [--videos 8] [--frames :16] [--engines run,local,ray,slurm] [--workers 1,2]

The batch gets links to VIDEO under several names. `run` starts a process per video, one after the other; `slurm` is
submitit's local executor, so that no cluster is needed. Work is what the jobs themselves took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.commands.batch import BatchCommand, run_batch

ENGINE_OPTIONS = {"local": (), "ray": ("num_cpus=1",), "slurm": ("cluster=local",)}


def batch_seconds(command: BatchCommand, folder: Path) -> tuple[float, float]:
    """(wall seconds, seconds of work of all jobs)."""
    started = time.perf_counter()
    if run_batch(replace(command, output=folder)) != 0:
        raise SystemExit(f"not all jobs were done: see {folder}/summary.csv")
    wall = time.perf_counter() - started
    store = BatchRecords(folder)
    return wall, sum(result.seconds for job in store.jobs() if (result := store.result(job.key)))


def run_seconds(videos: list[Path], frames: str, folder: Path) -> float:
    """Wall seconds of one `vidseg run` after the other."""
    started = time.perf_counter()
    for video in videos:
        words = ["run", str(video), "--frames", frames, "--output", str(folder / video.stem)]
        subprocess.run([sys.executable, "-m", "vidseg", *words], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print a row per engine and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", default=":16")
    parser.add_argument("--engines", default="run,local,ray,slurm")
    parser.add_argument("--workers", default="1,2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = [folder / "videos" / f"v{number}{options.video.suffix}" for number in range(options.videos)]
        (folder / "videos").mkdir()
        for video in videos:
            video.symlink_to(options.video.resolve())
        print("engine  workers  wall s  s/video  work s  wall x workers / work")
        for engine in options.engines.split(","):
            if engine == "run":
                wall = run_seconds(videos, options.frames, folder / "run")
                print(f"run           -  {wall:6.1f}  {wall / len(videos):7.2f}       -")
                continue
            for workers in map(int, options.workers.split(",")):
                command = BatchCommand(
                    inputs=(str(folder / "videos"),),
                    frames=options.frames,
                    engine=engine,
                    workers=workers,
                    engine_option=ENGINE_OPTIONS[engine],
                    json_log=True,
                )
                wall, work = batch_seconds(command, folder / f"{engine}-{workers}")
                ratio = wall * workers / work
                print(f"{engine:<6}  {workers:>7}  {wall:6.1f}  {wall / len(videos):7.2f}  {work:6.1f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
