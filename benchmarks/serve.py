"""The server: time of a click over HTTP, concurrent sessions against one after the other, memory of many sessions.

    python benchmarks/serve.py CLIP [--clicks 50] [--frames 12] [--cycles 1000]

CLIP is brought to 1280x720. The server runs in a process of its own, with the embedded models.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import psutil

from vidseg import Client
from vidseg.video import open_source

CLICK_S, GAIN, GROWTH_MB = 0.35, 1.3, 30.0


def follow(url: str, token: str, pictures: list[np.ndarray]) -> None:
    """One session: an object from a box, followed through all pictures."""
    height, width = pictures[0].shape[:2]
    with Client(url, token=token) as session:
        session.step(pictures[0])
        session.add(box=(width * 0.25, height * 0.25, width * 0.75, height * 0.75))
        for picture in pictures[1:]:
            session.step(picture)


def clicks(url: str, token: str, picture: np.ndarray, count: int) -> float:
    """95th percentile of the seconds from a click to its mask."""
    rng, times = np.random.default_rng(0), []
    height, width = picture.shape[:2]
    with Client(url, token=token) as session:
        session.step(picture)
        while len(times) < count:
            point = (float(rng.uniform(0.1, 0.9) * width), float(rng.uniform(0.1, 0.9) * height))
            begun = time.perf_counter()
            session.preview(points=[point])
            times.append(time.perf_counter() - begun)
    return float(np.percentile(times[1:], 95))


def main() -> None:
    """Run and print measured / limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--cycles", type=int, default=1000)
    options = parser.parse_args()
    source = open_source(options.clip)
    pictures = [cv2.resize(frame.rgb, (1280, 720)) for frame in islice(source, options.frames)]
    source.close()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "token"
        secret.write_text(token)
        command = [sys.executable, "-m", "vidseg", "serve", "--root", folder, "--state", f"{folder}/state"]
        command += ["--token-file", str(secret)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        try:
            follow(url, token, pictures[:2])  # warm
            print(
                f"click over HTTP, 95th percentile: {clicks(url, token, pictures[0], options.clicks):.3f} / {CLICK_S} s"
            )
            begun = time.perf_counter()
            for _ in range(4):
                follow(url, token, pictures)
            single = time.perf_counter() - begun
            threads = [threading.Thread(target=follow, args=(url, token, pictures)) for _ in range(4)]
            begun = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            together = time.perf_counter() - begun
            frames = 4 * len(pictures)
            print(
                f"four sessions: {frames / single:.2f} frames per second one after the other, {frames / together:.2f}"
                f" at the same time: {single / together:.2f} / {GAIN}"
            )
            process, sizes = psutil.Process(server.pid), []
            small = cv2.resize(pictures[0], (160, 96))
            for cycle in range(options.cycles):
                with Client(url, token=token) as session:
                    session.step(small)
                if cycle in (options.cycles // 10, options.cycles - 1):
                    sizes.append(process.memory_info().rss / 2**20)
            print(f"{options.cycles} sessions opened and closed: {sizes[-1] - sizes[0]:+.1f} / {GROWTH_MB:.0f} MB")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
