"""CPU seconds and peak memory of the evaluators on synthetic sets of the size of the public benchmarks.

    python benchmarks/evaluation.py [--sets davis tube] [--keep FOLDER]

Each evaluator runs as the command a user types, in a process of its own; start-up counts. The figures of the reference
evaluators beside ours were measured once on two cores of the same kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vidseg.masks.palette import davis_palette
from vidseg.masks.rle import encode

REFERENCE = {
    "davis": "davis2017-evaluation: 61 s, 1970 MB (target: 5 s, 200 MB)",
    "davis unsupervised": "-",
    "vos": "vos-benchmark: 27 s, 100 MB",
    "tube mask": "official: 0.6 s without start-up",
    "tube boundary": "official: 10.3 s (target: 5.15 s)",
}


def blobs(
    rng: np.random.Generator, frames: int, height: int, width: int, count: int, jitter: float
) -> Iterator[np.ndarray]:
    """Label maps of ``count`` wavy ellipses that move; ``jitter``: noise on the outline, in pixels."""
    centre = rng.uniform((0.2 * width, 0.2 * height), (0.8 * width, 0.8 * height), (count, 2))
    speed = rng.normal(0, 3, (count, 2))
    radius = rng.uniform(0.08, 0.2, (count, 2)) * height
    wave, phase = rng.integers(3, 9, count), rng.uniform(0, 6, count)
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    for t in range(frames):
        labels = np.zeros((height, width), np.uint8)
        for k in range(count):
            reach = 1 + 0.15 * np.sin(wave[k] * angles + phase[k] + 0.1 * t)
            outline = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] * radius[k] + rng.normal(
                0, jitter, (90, 2)
            )
            cv2.fillPoly(labels, [np.rint(centre[k] + speed[k] * t + outline).astype(np.int32)], (k + 1,))
        yield labels


def make_davis(root: Path, videos: int = 30, frames: int = 70, height: int = 480, width: int = 854) -> None:
    """A DAVIS root for both tasks, with predictions in ``root/pred``."""
    names = [f"video{v:02d}" for v in range(videos)]
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(names) + "\n")
    (root / "Annotations_unsupervised").symlink_to("Annotations")
    palette = np.asarray(davis_palette()).tobytes()
    for v, name in enumerate(names):
        for folder, jitter in (("Annotations/480p", 0.0), ("pred", 2.0)):
            (root / folder / name).mkdir(parents=True)
            for t, labels in enumerate(blobs(np.random.default_rng(v), frames, height, width, 2, jitter)):
                image = Image.fromarray(labels, "P")
                image.putpalette(palette)
                image.save(root / folder / name / f"{t:05d}.png")


def make_tubes(root: Path, videos: int = 60, frames: int = 20, height: int = 360, width: int = 640) -> None:
    """A YouTube-VIS ground truth with 2 tracks a video and 10 results a video."""
    root.mkdir(parents=True)
    truth: dict[str, list[object]] = {"videos": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    results = []
    for v in range(1, videos + 1):
        truth["videos"].append({"id": v, "height": height, "width": width, "length": frames})
        for number in range(12):
            rng = np.random.default_rng(100 * v + number % 2)
            labels = list(blobs(rng, frames, height, width, 1, 0.0 if number < 2 else 0.4 * number))
            tube = [encode(map_ == 1).to_coco() if map_.any() else None for map_ in labels]
            row = {"video_id": v, "category_id": 1, "segmentations": tube}
            if number < 2:
                areas = [int(map_.sum()) or None for map_ in labels]
                truth["annotations"].append({**row, "id": len(truth["annotations"]) + 1, "areas": areas, "iscrowd": 0})
            else:
                results.append({**row, "score": round(float(np.random.default_rng(number + v).random()), 4)})
    (root / "gt.json").write_text(json.dumps(truth))
    (root / "pred.json").write_text(json.dumps(results))


def measure(arguments: list[str]) -> tuple[float, float]:
    """(CPU seconds, peak MB) of one vidseg command."""
    process = subprocess.Popen([sys.executable, "-m", "vidseg", "eval", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"vidseg eval {' '.join(arguments)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Make the sets, run the commands, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=("davis", "tube"), default=("davis", "tube"))
    parser.add_argument("--keep", type=Path, help="use this folder and leave the sets there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        davis, tube = root / "davis", root / "tube"
        runs: dict[str, list[str]] = {}
        if "davis" in options.sets:
            if not davis.is_dir():
                make_davis(davis)
            files = ["--gt", str(davis), "--pred", str(davis / "pred")]
            runs["davis"] = ["davis", *files]
            runs["davis unsupervised"] = ["davis", *files, "--task", "unsupervised"]
            runs["vos"] = ["vos", *files]
        if "tube" in options.sets:
            if not tube.is_dir():
                make_tubes(tube)
            files = ["--gt", str(tube / "gt.json"), "--pred", str(tube / "pred.json")]
            runs["tube mask"] = ["ytvis", *files]
            runs["tube boundary"] = ["hq-ytvis", *files]
        print(f"{'evaluation':<20}{'CPU s':>8}{'peak MB':>9}  reference")
        for name, arguments in runs.items():
            seconds, memory = measure(arguments)
            print(f"{name:<20}{seconds:>8.2f}{memory:>9.0f}  {REFERENCE[name]}", flush=True)


if __name__ == "__main__":
    main()
