"""A live run for hours, with objects that come and go: its memory must stay flat.

    python benchmarks/soak.py [--hours 2] [--limit 60]

A synthetic scene is sent as an endless stream to `vidseg run -`, which looks for new objects every 25 frames and
follows at most three. The largest resident size of the last quarter may exceed that of the second by at most
``--limit`` MB (the first fills the bounded memories). Exits with 1 if it does, or if the run ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil

WIDTH, HEIGHT, FPS = 320, 240, 12
COLORS = [(230, 60, 40), (40, 200, 70), (60, 80, 230), (240, 220, 40)]


def scene(time_step: int) -> np.ndarray:
    """Discs over a textured background; each is there for some seconds, and away for some."""
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 5)
    for k, color in enumerate(COLORS):
        if (time_step // (FPS * (7 + 3 * k)) + k) % 2 == 0:
            x = int(WIDTH * (0.5 + 0.4 * np.sin(time_step / (30 + 7 * k) + 2 * k)))
            y = int(HEIGHT * (0.5 + 0.35 * np.cos(time_step / (41 + 5 * k) + k)))
            cv2.circle(image, (x, y), HEIGHT // 9, color, -1)
    return image


def feed(child: subprocess.Popen[bytes], seconds: float) -> int:
    """Send the scene until the time is over or the child ends; the number of frames."""
    begun, step = time.monotonic(), 0
    try:
        with av.open(child.stdin, "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=FPS)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 2_000_000
            stream.time_base = Fraction(1, FPS)
            while time.monotonic() - begun < seconds and child.poll() is None:
                frame = av.VideoFrame.from_ndarray(scene(step), format="rgb24")
                frame.pts, frame.time_base = step, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                step += 1
    except (BrokenPipeError, av.error.FFmpegError):
        pass  # the child's exit code says why
    return step


def watch(process: psutil.Process, seconds: float, sizes: list[tuple[float, float]], end: threading.Event) -> None:
    """Add (seconds, resident MB) to ``sizes`` four hundred times, however slowly frames are taken."""
    begun = time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess):
        while not end.wait(seconds / 400):
            sizes.append((time.monotonic() - begun, process.memory_info().rss / 2**20))


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--limit", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        settings = ["--max-objects", "3", "--detect-every", "25", "--save", "overlay", "--drop", "none"]
        command = [sys.executable, "-m", "vidseg", "run", "-", "--output", str(output), *settings]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            sizes: list[tuple[float, float]] = []
            end, seconds = threading.Event(), options.hours * 3600
            watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid), seconds, sizes, end))
            watcher.start()
            sent = feed(child, seconds)
            end.set()
            watcher.join()
            ended = child.poll() is not None
            child.terminate()  # a live run then ends by itself, with the frames that it has read
            if child.stdin is not None and not child.stdin.closed:
                child.stdin.close()
        run = json.loads((output / "run.json").read_text()) if (output / "run.json").exists() else {}
        ids = {row["id"] for line in (output / "masks.jsonl").open() for row in json.loads(line)["objects"]}
    quarter = [[mb for at, mb in sizes if at // (sizes[-1][0] / 4 + 1e-9) == q] for q in range(4)]
    growth = max(quarter[3] or [0]) - max(quarter[1] or [0])
    peaks = ", ".join(f"{max(part or [0]):.0f}" for part in quarter)
    print(f"{sent} frames in {sizes[-1][0] / 3600:.2f} h, {len(ids)} objects, status {run.get('status')}")
    print(f"largest resident size by quarter: {peaks} MB; growth / limit: {growth:+.0f} / {options.limit:.0f} MB")
    return int(ended or child.returncode != 0 or growth > options.limit)


if __name__ == "__main__":
    sys.exit(main())
