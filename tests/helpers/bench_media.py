"""Tiny data sets in the official layouts, and networks that count what they do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval_media import rle, save_labels, square, write
from toys import EncoderCounter, KeepMasks, tiny_sam
from vidseg.config import RunConfig
from vidseg.datasets.layouts import HQSEG_VAL
from vidseg.sam.model import Sam
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.run import ReproduceResult, run_benchmark
from vidseg_pipelines.run import Loaders

SIZE = (48, 64)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def save_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path)


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask > 0).astype(np.uint8) * np.uint8(255)).save(path)


def hq44k(root: Path, count: int = 2) -> Path:
    """``count`` images in each of the four sets; the last of the first set has an empty mask."""
    for number, (images, masks) in enumerate(HQSEG_VAL.values()):
        for k in range(count):
            save_image(root / images / f"i{k}.jpg", 10 * number + k)
            side = 0 if (number, k) == (0, count - 1) else 12 + 3 * k + number
            save_mask(root / masks / f"i{k}.png", square(SIZE, 4 + number, 6 + 2 * k, side))
    return root


def coco(root: Path, count: int = 3) -> tuple[Path, Path]:
    """(annotation file, boxes of a detector): image 3 has an object, but nothing is detected on it."""
    images, annotations, found = [], [], []
    for k in range(1, count + 1):
        save_image(root / "coco" / "val2017" / f"{k:012d}.jpg", k)
        mask = square(SIZE, 5 + k, 7, 16)
        images.append({"id": k, "file_name": f"{k:012d}.jpg", "height": SIZE[0], "width": SIZE[1]})
        box = [7, 5 + k, 16, 16]
        row = {"image_id": k, "category_id": 1 + k % 2, "bbox": box}
        annotations.append({**row, "id": k, "area": 256, "iscrowd": 0, "segmentation": rle(mask)})
        if k < 3:
            found += [{**row, "score": 0.5 + k / 10}, {**row, "bbox": [30.5, 20, 20, 10], "score": 0.25}]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    file = root / "coco" / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    write(file, {"images": images, "annotations": annotations, "categories": categories})
    return file, write(root / "boxes.json", found)


def tubes(root: Path, name: str = "ytvis_2019/valid", file: str = "ytvis_2019/valid.json") -> tuple[Path, Path]:
    """(annotation file, results of a tracker): two videos; the object of the second is absent on its second frame."""
    videos, annotations, found = [], [], []
    for k in (1, 2):
        names = [f"v{k}/{t:05d}.jpg" for t in (0, 5, 10)]
        for t, frame in enumerate(names):
            save_image(root / name / "JPEGImages" / frame, 10 * k + t)
        maps = [None if (k, t) == (2, 1) else square(SIZE, 8, 5 + 4 * t, 18) for t in range(3)]
        boxes = [None if m is None else [5 + 4 * t, 8, 18, 18] for t, m in enumerate(maps)]
        videos.append({"id": k, "file_names": names, "height": SIZE[0], "width": SIZE[1], "length": 3})
        row = {"video_id": k, "category_id": 1, "bboxes": boxes}
        segments = [None if m is None else rle(m) for m in maps]
        areas = [None if m is None else 324 for m in maps]
        annotations.append({**row, "id": k, "iscrowd": 0, "segmentations": segments, "areas": areas})
        found.append({**row, "score": 0.9})
    target = root / file
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, {"videos": videos, "annotations": annotations, "categories": [{"id": 1, "name": "one"}]})
    return target, write(root / "tracks.json", found)


def davis(root: Path, names: Sequence[str] = ("a", "b"), frames: int = 4) -> Path:
    for number, name in enumerate(names):
        for t in range(frames):
            save_image(root / "DAVIS" / "JPEGImages" / "480p" / name / f"{t:05d}.jpg", 10 * number + t)
        maps = [square(SIZE, 10, 8 + 2 * t, 20) for t in range(frames)]
        save_labels(root / "DAVIS" / "Annotations" / "480p" / name, maps)
    listing = root / "DAVIS" / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names))
    return root / "DAVIS"


class Stop(Exception):
    """Stands for a kill."""


class Counting:
    """Gives toy networks; ``images`` counts encoder passes, ``loads`` the networks. ``stop_at``: fails there."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.sam: Sam = tiny_sam(output="sum")  # as the official networks have it
        self.counter, self.loads = EncoderCounter(self.sam), 0
        if stop_at is not None:
            self.sam.image_encoder.register_forward_pre_hook(lambda *_: self._stop(stop_at))

    @property
    def images(self) -> int:
        return self.counter.images

    def _stop(self, at: int) -> None:
        if self.images == at:
            raise Stop

    def loaders(self) -> Loaders:
        def load(config: RunConfig) -> Sam:
            self.loads += 1
            return self.sam

        return Loaders(load, lambda config: KeepMasks())

    def run(self, benchmark: str, root: Path, **settings: Any) -> ReproduceResult:
        config = ReproduceConfig(benchmark=benchmark, data=root, **{"output": root / "out", **settings})
        return run_benchmark(config, loaders=self.loaders())


def read(path: Path) -> Any:
    return json.loads(path.read_text())
