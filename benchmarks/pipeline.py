"""Where the time of a run goes, and how close the networks come to this machine's limit.

    python benchmarks/pipeline.py VIDEO [--prompt-box x1,y1,x2,y2 ...]

Prints seconds per stage, the share of the wall time outside the networks, and measured / possible arithmetic of the
networks, where the limit is the rate of a large float32 matrix product in the same process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidseg.config import RunConfig
from vidseg.video import open_source
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_folder import RunFolder

NETWORK_STAGES = ("encode", "decode", "track", "find")


def matmul_flops_per_s(size: int = 2048, seconds: float = 2.0) -> float:
    """Rate of a float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.matmul(a, b)
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        torch.matmul(a, b)
        rounds += 1
    return rounds * 2 * size**3 / (time.perf_counter() - started)


def flops_per_frame(video: str, frames: int = 8) -> float:
    """Floating point operations of the networks per frame, counted on the first frames."""
    source = open_source(video, frames=slice(0, frames))
    with FlopCounterMode(display=False) as counter:
        done = len(list(segment_frames(source, batch=4)))
    source.close()
    return counter.get_total_flops() / max(done, 1)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--prompt-box", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(input=options.video, output=Path(folder) / "run", box=tuple(options.prompt_box))
        summary = run_video(config)
        manifest = RunFolder(summary.folder).read_manifest() or {}
    wall, stages = manifest["wall_seconds"], manifest["seconds"]
    networks = sum(stages.get(stage, 0.0) for stage in NETWORK_STAGES)
    print(f"{summary.frames} frames, {len(summary.objects)} objects, {wall:.2f} s, {summary.frames / wall:.2f} fps")
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"  {stage:<16} {seconds:8.2f} s  {1000 * seconds / summary.frames:8.1f} ms per frame")
    print(f"outside the networks: {100 * (1 - networks / wall):.1f} % of the wall time")
    limit = matmul_flops_per_s()
    rate = flops_per_frame(options.video) * summary.frames / networks
    print(f"networks: {rate / 1e9:.1f} of {limit / 1e9:.1f} GFLOP/s (measured / limit = {rate / limit:.2f})")


if __name__ == "__main__":
    main()
