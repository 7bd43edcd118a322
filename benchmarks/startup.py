"""CPU time of commands that compute nothing, against that of importing numpy in the same run; a run's first masks.

python benchmarks/startup.py
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

LIMIT = 6.0
"""Times `python -c "import numpy"`."""
CALLS = (
    "--version",
    "run --help",
    "run video.mp4 --save davs",
    "run video.mp4 --no-such-flag",
    "image --help",
    "batch --help",
    "export --help",
    "train hq --help",
    "weights list",
)
TIMES = 5
FIRST_FRAME_S = 2.0
"""Limit for the time from the start of a run to the masks of its first frame."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Modules are compiled once, as in an installation."""


def cpu_seconds(arguments: list[str]) -> float:
    """Median CPU time of a Python process with these arguments."""
    seconds = []
    for _ in range(TIMES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False, env=ENVIRONMENT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def write_frames(folder: Path) -> None:
    """Sixteen frames of 854x480 pixels in which a square moves over noise."""
    folder.mkdir()
    background = np.random.default_rng(0).integers(0, 60, (480, 854, 3), dtype=np.uint8)
    for index in range(16):
        frame = background.copy()
        frame[150:300, 200 + 8 * index : 350 + 8 * index] = (40, 200, 240)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), frame)


def first_masks(frames: Path, output: Path) -> tuple[float, float]:
    """Wall and CPU seconds from the start of a run with all defaults to the first line of its journal."""
    arguments = ["run", str(frames), "--box", "200,150,350,300", "--output", str(output), "--overwrite", "--quiet"]
    journal = output / "masks.jsonl"
    journal.unlink(missing_ok=True)
    begun = time.perf_counter()
    process = psutil.Popen([sys.executable, "-m", "vidseg", *arguments], env=ENVIRONMENT)
    try:
        while not (journal.exists() and b"\n" in journal.read_bytes()):
            if process.poll() is not None:
                raise SystemExit(f"the run ended without masks, with exit code {process.returncode}")
            time.sleep(0.005)
        wall, used = time.perf_counter() - begun, process.cpu_times()
    finally:
        process.kill()
        process.wait()
    return wall, used.user + used.system


def main() -> int:
    """Print a row per command and the times of first masks; 1 if one is over the limit."""
    unit = cpu_seconds(["-c", "import numpy"])
    print(f"import numpy: {unit:.3f} CPU s; limit: {LIMIT:g} times that, {LIMIT * unit:.2f} s\n")
    print(f"{'command':32}  CPU s   ratio  measured / limit")
    worst = 0.0
    for call in CALLS:
        seconds = cpu_seconds(["-m", "vidseg", *call.split()])
        worst = max(worst, seconds / unit)
        print(f"vidseg {call:25}  {seconds:5.3f}  {seconds / unit:5.1f}   {seconds / unit / LIMIT:5.2f}")
    print(f"\nimport torch: {cpu_seconds(['-c', 'import torch']):.2f} CPU s")
    with tempfile.TemporaryDirectory() as folder:
        write_frames(frames := Path(folder) / "frames")
        first_masks(frames, Path(folder) / "run")  # compiles what was not yet
        walls, used = zip(*(first_masks(frames, Path(folder) / "run") for _ in range(TIMES)), strict=True)
    wall = statistics.median(walls)
    print(
        f"vidseg run, first frame: {wall:.2f} s ({min(walls):.2f} to {max(walls):.2f}), {statistics.median(used):.2f}"
        f" CPU s; measured / limit {wall / FIRST_FRAME_S:.2f}"
    )
    return int(worst > LIMIT or wall > FIRST_FRAME_S)


if __name__ == "__main__":
    sys.exit(main())
