"""Tiny data sets of videos in the layouts they are published in: two videos, squares that move, one comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval_media import rle, save_labels, square, write

SIZE = (40, 60)
FRAMES = 6


def first(t: int) -> np.ndarray:
    return square(SIZE, 4, 4 + 2 * t, 12)


def second(t: int, since: int = 0) -> np.ndarray:
    return square(SIZE, 22, 30 - t, 10) if t >= since else np.zeros(SIZE, np.uint8)


def labels(t: int, since: int = 0) -> np.ndarray:
    return first(t) + 2 * second(t, since)


def save_mask(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


def save_frame(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(path)
    return path


def sav(root: Path, frames: int = FRAMES, step: int = 4) -> Path:
    """sav_val: frames at 24 per second, masks at 6; the objects of "b" overlap, and one of them comes later."""
    for number, name in enumerate("abc"):
        for t in range(frames * step):
            save_frame(root / "sav_val" / "JPEGImages_24fps" / name / f"{t:05d}.jpg", 100 * number + t)
        since = 2 if name == "b" else 0
        for t in range(frames):
            folder = root / "sav_val" / "Annotations_6fps" / name
            save_mask(folder / "000" / f"{t * step:05d}.png", first(t) > 0)
            if t >= since:
                save_mask(folder / "001" / f"{t * step:05d}.png", (first(t) + second(t)) > 0)
    (root / "sav_val" / "sav_val.txt").write_text("a\nb\n")
    return root / "sav_val"


def mose(root: Path, frames: int = FRAMES) -> Path:
    for name in "ab":
        save_labels(root / "MOSE" / "valid" / "Annotations" / name, [labels(t) for t in range(frames)])
        for t in range(FRAMES):
            save_frame(root / "MOSE" / "valid" / "JPEGImages" / name / f"{t:05d}.jpg", t)
    return root / "MOSE"


def lvos(root: Path, table: str = "val_meta.json", split: str = "val") -> Path:
    """Frames 1, 6, 11, ...; the second object of "b" is in the table from the third frame on."""
    videos: dict[str, Any] = {}
    for name in "ab":
        since = 2 if name == "b" else 0
        for t in range(FRAMES):
            folder = root / "LVOS" / split / "Annotations" / name
            save_labels(folder, [labels(t, since)], 5 * t + 1)
            (folder / f"{5 * t + 1:05d}.png").rename(folder / f"{5 * t + 1:08d}.png")
            save_frame(root / "LVOS" / split / "JPEGImages" / name / f"{5 * t + 1:08d}.jpg", t)
        end = 5 * FRAMES - 4
        spans = [(1, end, FRAMES), (5 * since + 1, end, FRAMES - since)]
        objects = {
            str(k): {"frame_range": {"start": f"{s:08d}", "end": f"{e:08d}", "frame_nums": str(n)}}
            for k, (s, e, n) in enumerate(spans, 1)
        }
        videos[name] = {"objects": objects}
    write(root / "LVOS" / split / table, {"videos": videos})
    write(root / "LVOS" / split / f"{split}_expression_meta.json", {"videos": {"a": {"objects": {"1": {"exp": "x"}}}}})
    return root / "LVOS"


def vost(root: Path) -> Path:
    """The frames have names of their own; a strip of 255 beside the first object."""
    for name in ("1_cut", "2_peel", "3_train"):
        for t in range(FRAMES):
            picture = labels(t)
            picture[4:16, 16 + 2 * t : 20 + 2 * t] = 255
            save_labels(root / "VOST" / "Annotations" / name, [picture], 10 * t)
            save_frame(root / "VOST" / "JPEGImages_10fps" / name / f"{10 * t:05d}.jpg", t)
    (root / "VOST" / "ImageSets").mkdir(parents=True)
    (root / "VOST" / "ImageSets" / "val.txt").write_text("1_cut\n2_peel\n")
    return root / "VOST"


def burst(root: Path) -> Path:
    """Two videos of two data sets; their tracks overlap, the second comes later."""
    rows = []
    for number, (data, name) in enumerate((("LaSOT", "bear-1"), ("AVA", "x_scene_1"))):
        names = [f"frame{10 * t:04d}.jpg" for t in range(FRAMES)]
        for t in range(10 * FRAMES - 9):
            save_frame(root / "BURST" / "frames" / "val" / data / name / f"frame{t:04d}.jpg", t)
        masks = [{"7": {"rle": rle(first(t))["counts"]}} for t in range(FRAMES)]
        for t in range(2, FRAMES):
            masks[t]["9"] = {"rle": rle((first(t) + second(t)) > 0)["counts"]}
        row = {"id": number, "dataset": data, "seq_name": name, "width": SIZE[1], "height": SIZE[0], "fps": 30}
        row |= {"all_image_paths": names, "annotated_image_paths": names, "segmentations": masks}
        rows.append({**row, "track_category_ids": {"7": 1, "9": 2}, "neg_category_ids": []})
    target = root / "BURST" / "annotations" / "val"
    target.mkdir(parents=True)
    write(target / "all_classes.json", {"sequences": rows, "categories": [], "split": "val"})
    return root / "BURST"
