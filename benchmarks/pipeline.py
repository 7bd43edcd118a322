"""Where the time of a run goes, and how close the networks come to this machine's limit.

    python benchmarks/pipeline.py VIDEO [--prompt-box x1,y1,x2,y2 ...] [--in-turn ROUNDS]

Prints seconds per stage (two things may be done at once), the share of them outside the networks, and measured /
possible arithmetic of the run, where the limit is the rate of a large float32 matrix product in the same process.
With --in-turn, the same run with one thing after the other as well, in alternation, and the ratio of both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidseg.config import Dtype, RunConfig
from vidseg.video import open_source
from vidseg_pipelines import streaming
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.run_summary import RunSummary

NETWORK_STAGES = ("encode", "decode", "track", "find")
OTHER_STAGES = ("paste", "compare", "wait for input", "wait for output")
"""Of the same threads."""


def matmul_flops_per_s(size: int = 2048, seconds: float = 2.0) -> float:
    """Rate of a float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.matmul(a, b)
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        torch.matmul(a, b)
        rounds += 1
    return rounds * 2 * size**3 / (time.perf_counter() - started)


def flops_per_frame(video: str, boxes: Sequence[str] = ()) -> float:
    """Floating point operations of the networks per frame, searches for objects included; takes as long as a run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do is not counted
    with open_source(video) as source, FlopCounterMode(display=False) as counter:
        done = sum(1 for _ in segment_frames(source, batch=4, box=boxes))
    torch.set_num_threads(threads)
    return counter.get_total_flops() / max(done, 1)


def run(video: str, boxes: list[str], dtype: Dtype = "auto") -> tuple[RunSummary, dict[str, Any]]:
    """A run with default settings but for the type, and what its manifest says."""
    with tempfile.TemporaryDirectory() as folder:
        summary = run_video(RunConfig(input=video, output=Path(folder) / "run", box=tuple(boxes), dtype=dtype))
        return summary, RunFolder(summary.folder).read_manifest() or {}


def share_outside(stages: dict[str, float]) -> float:
    """Of the time of both threads, what is spent outside the networks."""
    networks, others = (sum(stages.get(stage, 0.0) for stage in s) for s in (NETWORK_STAGES, OTHER_STAGES))
    return others / (networks + others)


def compare(video: str, boxes: list[str], rounds: int) -> None:
    """Frames per second of runs in turn and at once."""
    rates = []
    for _ in range(rounds):
        with mock.patch.object(streaming, "overlaps", lambda segmenter: False):
            in_turn = run(video, boxes)[0].fps
        rates.append((in_turn, run(video, boxes)[0].fps))
        print(f"one thing after the other: {in_turn:.2f} fps, two at once: {rates[-1][1]:.2f} fps", flush=True)
    print(f"median of {rounds} ratios: {statistics.median(two / one for one, two in rates):.2f}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--prompt-box", action="append", default=[])
    parser.add_argument("--in-turn", type=int, default=0, metavar="ROUNDS")
    options = parser.parse_args()
    if options.in_turn:
        compare(options.video, options.prompt_box, options.in_turn)
    summary, manifest = run(options.video, options.prompt_box)
    wall, stages = manifest["wall_seconds"], manifest["seconds"]
    print(f"{summary.frames} frames, {len(summary.objects)} objects, {wall:.2f} s, {summary.frames / wall:.2f} fps")
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"  {stage:<16} {seconds:8.2f} s  {1000 * seconds / summary.frames:8.1f} ms per frame")
    print(f"outside the networks: {100 * share_outside(stages):.1f} % of the time of both threads")
    limit = matmul_flops_per_s()
    rate = flops_per_frame(options.video, options.prompt_box) * summary.frames / (wall - stages.get("load", 0.0))
    print(f"the run: {rate / 1e9:.1f} of {limit / 1e9:.1f} GFLOP/s (measured / limit = {rate / limit:.2f})")


if __name__ == "__main__":
    main()
