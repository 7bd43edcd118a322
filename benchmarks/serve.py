"""The server: time of a click over HTTP, concurrent sessions against one after the other, equal masks, memory.

    python benchmarks/serve.py CLIP [--clicks 50] [--frames 12] [--rounds 5] [--cycles 1000]
        [--only click,ratio,equal,memory]

CLIP is brought to 1280x720. The server runs in a process of its own, with the embedded models. Every click makes an
object of its own, on a frame that has been looked at for a second; it is timed to its answer, which has a mask, and to
the final mask. Sessions at the same time and one after the other take turns, and the median of the ratios counts: what
else runs here slows both.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import httpx
import numpy as np
import psutil
import torch

from vidseg import Client, Session
from vidseg.masks.frame_masks import FrameMasks
from vidseg.video import open_source

CLICK_S, GAIN, GROWTH_MB, SESSIONS = 0.35, 1.3, 30.0, 4
_THINK_S = 1.0


class Server(NamedTuple):
    """A server that runs."""

    url: str
    token: str
    process: psutil.Process

    def open(self) -> Client:
        """A new session."""
        return Client(self.url, token=self.token)


@contextmanager
def server() -> Iterator[Server]:
    """A server in a process of its own."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "token"
        secret.write_text(token)
        command = [sys.executable, "-m", "vidseg", "serve", "--root", folder, "--state", f"{folder}/state"]
        process = subprocess.Popen(
            [*command, "--token-file", str(secret)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        try:
            yield Server(url, token, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def follow(session: Any, pictures: list[np.ndarray]) -> list[FrameMasks]:
    """An object from a box, followed through all pictures, by a Client or a Session."""
    height, width = pictures[0].shape[:2]
    with session:
        session.step(pictures[0])
        session.add(box=(width * 0.25, height * 0.25, width * 0.75, height * 0.75))
        return [session.masks, *(session.step(picture) for picture in pictures[1:])]


def click(running: Server, picture: np.ndarray, count: int) -> None:
    """Seconds from a click to its mask and to the final mask, and what the first costs the processor."""
    rng = np.random.default_rng(0)
    first, final, work = [], [], []
    height, width = picture.shape[:2]
    headers = {"authorization": f"Bearer {running.token}"}
    with running.open() as session, httpx.Client(base_url=running.url, headers=headers, timeout=60) as http:
        path = f"/v1/sessions/{session.id}"
        session.step(picture)
        while len(first) < count:
            time.sleep(_THINK_S)
            point = (float(rng.uniform(0.1, 0.9) * width), float(rng.uniform(0.1, 0.9) * height))
            before, begun = running.process.cpu_times(), time.perf_counter()
            answer = http.post(f"{path}/objects", json={"points": [point]})
            shown, after = time.perf_counter() - begun, running.process.cpu_times()
            if answer.status_code == 422:
                continue  # nothing is there
            http.get(f"{path}/masks").raise_for_status()
            final.append(time.perf_counter() - begun)
            first.append(shown)
            work.append(after.user + after.system - before.user - before.system)
            http.delete(f"{path}/objects/{answer.json()['id']}")
    for what, times, limit in (("mask", first, f" / {CLICK_S}"), ("final mask", final, "")):
        middle, late = np.percentile(times, [50, 95])
        print(f"click to {what} over HTTP: median {middle:.3f} s, 95th percentile {late:.3f}{limit} s")
    print(f"processor time of a click to its mask: median {statistics.median(work):.2f} s")


def ratio(opened: Callable[[], Client], pictures: list[np.ndarray], rounds: int) -> None:
    """Frames per second of sessions at the same time over those of one after the other."""
    single, together = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(SESSIONS):
            follow(opened(), pictures)
        single.append(time.perf_counter() - begun)
        threads = [threading.Thread(target=follow, args=(opened(), pictures)) for _ in range(SESSIONS)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together.append(time.perf_counter() - begun)
    gains = [one / all_ for one, all_ in zip(single, together, strict=True)]
    frames = SESSIONS * len(pictures)
    print(
        f"{SESSIONS} sessions: {frames / statistics.median(single):.2f} frames per second one after the other,"
        f" {frames / statistics.median(together):.2f} at the same time: {statistics.median(gains):.2f} / {GAIN}"
        f" ({min(gains):.2f} to {max(gains):.2f} in {rounds} rounds)"
    )


def equal(opened: Callable[[], Client], pictures: list[np.ndarray]) -> None:
    """Whether a Client and a Session of this process give the same masks."""
    torch.set_num_threads(os.cpu_count() or 1)  # as many as the server has for one session
    pairs = zip(follow(opened(), pictures), follow(Session(), pictures), strict=True)
    different = sum(int((there.label_map != here.label_map).sum()) for there, here in pairs)
    print(f"Client and Session: {different} pixels differ in {len(pictures)} frames")


def memory(opened: Callable[[], Client], picture: np.ndarray, cycles: int, process: psutil.Process) -> None:
    """Growth of the server from a tenth of the sessions to the last one."""
    sizes = []
    for cycle in range(cycles):
        with opened() as session:
            session.step(picture)
        if cycle % max(1, cycles // 10) == max(1, cycles // 10) - 1:
            sizes.append(process.memory_info().rss / 2**20)
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"{cycles} sessions opened and closed: {sizes[-1] - sizes[0]:+.1f} / {GROWTH_MB:.0f} MB ({shown} MB)")


def main() -> None:
    """Run and print measured / limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--only", default="click,ratio,equal,memory")
    options = parser.parse_args()
    source = open_source(options.clip)
    pictures = [cv2.resize(frame.rgb, (1280, 720)) for frame in islice(source, options.frames)]
    source.close()
    with server() as running:
        follow(running.open(), pictures[:2])  # warm
        for name in options.only.split(","):
            match name:
                case "click":
                    click(running, pictures[0], options.clicks)
                case "ratio":
                    ratio(running.open, pictures, options.rounds)
                case "equal":
                    equal(running.open, pictures)
                case "memory":
                    memory(running.open, cv2.resize(pictures[0], (160, 96)), options.cycles, running.process)
                case _:
                    parser.error(f"--only {name}: allowed are click, ratio, equal, memory")


if __name__ == "__main__":
    main()
