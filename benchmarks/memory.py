"""Peak memory of a long run against a short one: nothing may grow with the length of the video.

    python benchmarks/memory.py [--frames 200 2000] [--size 854x480]

Each length runs in a process of its own on a synthetic video of moving discs, prompted by a box.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from vidseg.config import RunConfig
from vidseg.video import VideoWriter
from vidseg_pipelines.run import run_video


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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=[200, 2000])
    parser.add_argument("--size", default="854x480")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    width, height = map(int, options.size.split("x"))
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.frames:
            video = Path(folder) / f"{count}.mp4"
            make_video(video, count, width, height)
            command = [sys.executable, __file__, "--child", str(video), str(Path(folder) / f"run{count}")]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            frames, objects, fps, peak = result.stdout.split()
            print(f"{frames} frames of {options.size}, {objects} object(s): {fps} fps, peak {peak} MB", flush=True)
            peaks.append(float(peak))
    print(f"difference: {peaks[1] - peaks[0]:+.1f} MB")


if __name__ == "__main__":
    main()
