"""A page with a tiny network and a tracker that keeps masks; ``python ui_toys.py PATH OUTPUT`` serves it by hand.

The tracker may be slowed down, so that a test can look at the page, or kill it, in the middle of a run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from media import write_video
from toys import KeepMasks, tiny_sam
from vidseg.config import RunConfig
from vidseg.masks.rle import encode_window
from vidseg.types import Frame, Prompt, Tracks
from vidseg_pipelines.build import Models
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.ui.desk import Desk
from vidseg_pipelines.ui.engine import PageEngine
from vidseg_pipelines.ui.library import Library
from vidseg_pipelines.ui.serve import serve

WIDTH, HEIGHT = 160, 96


class SlowKeeper(KeepMasks):
    """Keeps masks, and takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        time.sleep(self.seconds)
        return super().step(frame, prompts)


def toy_engine(seconds: float = 0.0) -> PageEngine:
    def load() -> Models:
        torch.set_num_threads(1)
        sam = tiny_sam()
        return Models(SlowKeeper(seconds), sam, Refiner(sam))

    return PageEngine(load)


def toy_video(path: Path, count: int = 24, **options: str) -> Path:
    """A bright square that moves over a dark ground."""
    frames = np.full((count, HEIGHT, WIDTH, 3), 30, np.uint8)
    for n, frame in enumerate(frames):
        frame[30:66, 40 + n : 80 + n] = (220, 180, 60)
    return write_video(path, list(frames), options=options)


def fill(run: Path, objects: int, frames: int, size: tuple[int, int]) -> None:
    """A run folder in which every object is one pixel column of every frame."""
    run.mkdir(parents=True)
    height, width = size
    rows = []

    for i in range(objects):
        x, y = i % width, 4 * (i // width)
        rle = encode_window(np.ones((3, 1), np.bool_), y, x, height, width)
        rows.append({"id": i + 1, "box": [x, y, x + 1, y + 3], "score": 0.9, "label": None, "rle": rle.to_coco()})
    text = json.dumps(rows, separators=(",", ":"))
    with (run / "masks.jsonl").open("w") as file:
        for n in range(frames):
            file.write(f'{{"frame":{n},"pts":{512 * n},"time_s":{n / 25},"objects":{text}}}\n')


def toy_desk(path: Path | None, output: Path, seconds: float = 0.0) -> Desk:
    return Desk(Library(path, output), toy_engine(seconds), toy_config())


def toy_config() -> RunConfig:
    return RunConfig(save="none", tracker="xmem", model="compact", offline=True)


def serve_toys(path: Path, output: Path, seconds: float, ready: Callable[[str], None]) -> None:
    serve(path, output, toy_engine(seconds), toy_config(), ready=ready)


if __name__ == "__main__":
    serve_toys(Path(sys.argv[1]), Path(sys.argv[2]), 0.0, lambda url: print(url, flush=True))
