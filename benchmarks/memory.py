"""Peak memory of a long run against a short one: nothing may grow with the length of the video.

    python benchmarks/memory.py [--frames 200 2000] [--size 854x480] [--tracker small-cutie]

Each length runs in a process of its own on a synthetic video of moving discs, prompted by a box. With ``--tracker`` a
tracker runs alone, with a small network of random weights (default size 96x64), on frames that are drawn as they are
needed; three masks are given on the first frame and one of them again every 100 frames.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from vidseg.config import RunConfig
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg.video import VideoWriter
from vidseg_pipelines.run import run_video
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.cutie.tracker import CutieTracker
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.tracker import XMemTracker


def make_video(path: Path, frames: int, width: int, height: int) -> None:
    """Three discs on slow paths over a textured background."""
    rng = np.random.default_rng(1)
    background = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), np.uint8), (0, 0), 9)
    writer = VideoWriter(path, width, height, fps=Fraction(24), time_base=Fraction(1, 24))
    for t in range(frames):
        image = background.copy()
        for k, color in enumerate([(230, 60, 40), (40, 200, 70), (60, 80, 230)]):
            x = int(width * (0.25 + 0.25 * k + 0.1 * np.sin(t / 40 + k)))
            y = int(height * (0.5 + 0.2 * np.cos(t / 55 + 2 * k)))
            cv2.circle(image, (x, y), height // 8, color, -1)
        writer.write(image, t)
    writer.close()


def child(video: str, folder: str) -> None:
    """One run; prints frames, objects, frames per second and the peak resident size in MB."""
    summary = run_video(RunConfig(input=video, output=Path(folder), box=("153,276,273,396",)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(summary.frames, len(summary.objects), f"{summary.fps:.2f}", f"{peak:.1f}")


def small_tracker(name: str) -> Tracker:
    """A tracker with a network of random weights whose frames take milliseconds."""
    torch.manual_seed(0)
    if name == "small-cutie":
        config = CutieConfig("resnet18", pixel_dim=32, key_dim=16, queries=4, heads=2, blocks=2, ff_dim=32, up_dim=16)
        return CutieTracker(Cutie(config).eval().requires_grad_(False), CutieOptions(size=-1, mem_every=2))
    xmem = XMemConfig(
        "compact", key_dim=16, value_dim=32, hidden_dim=16, f16_dim=128, f8_dim=40, f4_dim=24, mask_dim=32,
        fuser_dim=32, g16_dim=32, g8_dim=32, g4_dim=16, sensory_dim=32,
    )  # fmt: skip
    return XMemTracker(XMem(xmem).eval().requires_grad_(False), XMemOptions(size=-1, mem_every=2))


def track(name: str, frames: int, width: int, height: int) -> None:
    """One video through a tracker; prints what :func:`child` prints."""
    torch.set_num_threads(1)
    tracker = small_tracker(name)
    tracker.start(VideoInfo(width, height, Fraction(24)))
    rng = np.random.default_rng(1)
    background = cv2.GaussianBlur(rng.integers(0, 255, (height, width + 64, 3), np.uint8), (0, 0), 3)
    masks = [np.zeros((height, width), np.bool_) for _ in range(3)]
    for k, mask in enumerate(masks):
        mask[height // 4 : height // 2, width * k // 3 + 2 : width * (k + 1) // 3 - 2] = True
    prompts = [Prompt(0, k + 1, mask=mask) for k, mask in enumerate(masks)]
    started = time.perf_counter()
    for t in range(frames):
        rgb = np.ascontiguousarray(background[:, t % 64 : t % 64 + width])
        given = prompts if t == 0 else [replace(prompts[0], frame_index=t)] if t % 100 == 0 else []
        tracker.step(Frame(t, t, t / 24, rgb), given)
    fps = frames / (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(frames, len(masks), f"{fps:.2f}", f"{peak:.1f}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=[200, 2000])
    parser.add_argument("--size", help="default: 854x480; 96x64 with --tracker")
    parser.add_argument("--tracker", choices=("small-cutie", "small-xmem"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.size = options.size or ("96x64" if options.tracker else "854x480")
    width, height = map(int, options.size.split("x"))
    if options.child and options.tracker:
        track(options.tracker, int(options.child[0]), width, height)
        return
    if options.child:
        child(*options.child)
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.frames:
            if options.tracker:
                what = [str(count), "", "--tracker", options.tracker, "--size", options.size]
            else:
                video = Path(folder) / f"{count}.mp4"
                make_video(video, count, width, height)
                what = [str(video), str(Path(folder) / f"run{count}")]
            command = [sys.executable, __file__, "--child", *what]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            frames, objects, fps, peak = result.stdout.split()
            print(f"{frames} frames of {options.size}, {objects} object(s): {fps} fps, peak {peak} MB", flush=True)
            peaks.append(float(peak))
    print(f"difference: {peaks[1] - peaks[0]:+.1f} MB")


if __name__ == "__main__":
    main()
