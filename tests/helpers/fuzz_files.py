"""Mutated JSON, YAML, CSV, PNG and weight files for every reader of foreign files, until the time is over.

``python tests/helpers/fuzz_files.py [--minutes 10] [--seed 0]``: exits with 1 at the first file that raises anything
but vidseg's own one-line errors, and keeps it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from eval_media import image_result, image_truth, rle, square, tube_result, tube_truth
from fuzz_media import mutate
from vidseg.classes import read_classes
from vidseg.config import RunConfig
from vidseg.errors import VidsegError
from vidseg.evaluation.image_ap import evaluate_coco
from vidseg.evaluation.label_maps import read_label_map
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg.masks.annotation import read_annotation
from vidseg.options import load_yaml
from vidseg.outputs.journal import read_journal
from vidseg.weights.read import read_checkpoint, read_weights
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.manifest import read_manifest
from vidseg_trackers.boxes.files import read_boxes

SLOW_S = 60
MASK = square((12, 16), 2, 3, 6)

Reader = Callable[[Path], object]


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


def _saved(path: Path) -> bytes:
    return path.read_bytes()


def _png(folder: Path, pixels: np.ndarray, mode: str) -> bytes:
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("L").convert("P")
    image.save(folder / "x.png")
    return _saved(folder / "x.png")


def samples(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """File name to a good file and its reader."""
    labels = MASK.astype(np.uint8) * 3
    save_file({"a.weight": torch.ones(3, 4), "b": torch.zeros(2)}, folder / "w.safetensors")
    torch.save({"model": {"a.weight": torch.ones(3, 4)}, "step": 3}, folder / "w.pt")
    found = {"id": 1, "box": [3, 2, 9, 8], "score": 0.5, "label": "dog", "rle": rle(MASK)}
    line = {"frame": 0, "pts": 0, "time_s": 0.0, "objects": [found]}
    run = {"status": "done", "config": {}, "video": {}, "frames": {"count": 1}, "used": {}, "version": "0"}
    (folder / "gt.json").write_bytes(_text(image_truth([{"segmentation": rle(MASK), "bbox": [3, 2, 6, 6]}])))
    (folder / "tubes.json").write_bytes(_text(tube_truth()))
    (folder / "good.json").write_bytes(_text([image_result(MASK)]))
    (folder / "good-tubes.json").write_bytes(_text([tube_result()]))
    csv = b"frame,id,x1,y1,x2,y2,score,label\n0,1,3,2,9,8,0.5,dog\n1,1,3,2,9,8,0.5,dog\n"
    return {
        "masks.jsonl": (_text(line) + b"\n" + _text({**line, "frame": 1, "name": "b.jpg"}) + b"\n", _journal),
        "run.json": (_text(run), read_manifest),
        "coco.json": (_text([{"image_id": 1, "category_id": 1, "bbox": [3, 2, 6, 6], "score": 0.5}]), read_boxes),
        "boxes.csv": (csv, read_boxes),
        "mot.txt": (b"1,1,3,2,6,6,0.5,-1,-1,-1\n2,1,3,2,6,6,0.5,-1,-1,-1\n", read_boxes),
        "manifest.csv": (b'input,box,max_objects\na.mp4,"1,2,3,4;7@25:9,4,20,12",\nb.mp4,,3\n', _batch),
        "manifest.jsonl": (_text({"input": "a.mp4", "box": ["1,2,3,4"], "frames": ":9"}) + b"\n", _batch),
        "config.yaml": (b"input: a.mp4\nbox: ['1,2,3,4']\nmax_objects: 3\ntracker_options: {a: 1}\n", _settings),
        "classes.yaml": (b"names: {0: dog, 1: 'red car'}\n", read_classes),
        "classes.json": (_text({"categories": [{"id": 1, "name": "dog"}]}), read_classes),
        "labels.png": (_png(folder, labels, "L"), read_annotation),
        "palette.png": (_png(folder, labels, "P"), read_annotation),
        "colour.png": (_png(folder, np.stack([labels * 80] * 3, 2), "RGB"), read_annotation),
        "davis.png": (_png(folder, labels, "P"), read_label_map),
        "weights.safetensors": (_saved(folder / "w.safetensors"), read_weights),
        "weights.pt": (_saved(folder / "w.pt"), read_checkpoint),
        "truth.json": (_saved(folder / "gt.json"), lambda path: evaluate_coco(path, folder / "good.json")),
        "results.json": (_saved(folder / "good.json"), lambda path: evaluate_coco(folder / "gt.json", path)),
        "tubes.json": (_saved(folder / "tubes.json"), lambda path: evaluate_tubes(path, folder / "good-tubes.json")),
        "tracks.json": (_saved(folder / "good-tubes.json"), lambda path: evaluate_tubes(folder / "tubes.json", path)),
    }


def _journal(path: Path) -> object:
    return [masks.label_map for masks in read_journal(path)]


def _batch(path: Path) -> object:
    return list(expand([str(path)], RunConfig()))


def _settings(path: Path) -> object:
    return load_yaml(RunConfig, path)


def fuzz(folder: Path, seeds: Iterator[int]) -> Counter[tuple[str, bool]]:
    """Read a mutated file of every kind for each seed; how often (kind, read) came out.

    Raises:
        AssertionError: an error that is not ours, or not one line, or a reader that takes long; names the file.
    """
    originals = samples(folder)
    results: Counter[tuple[str, bool]] = Counter()
    (folder / "mutated").mkdir()
    for seed in seeds:
        for name, (data, reader) in originals.items():
            path = folder / "mutated" / name
            path.write_bytes(mutate(data, seed))
            begun = time.monotonic()
            results[name, _reads(path, reader, seed)] += 1
            assert time.monotonic() - begun < SLOW_S, f"{path} (seed {seed}) takes long"
    return results


def _reads(path: Path, reader: Reader, seed: int) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(path)
    except VidsegError as error:
        assert "\n" not in str(error), f"{path} (seed {seed}): {error}"
        return False
    except Exception as error:
        raise AssertionError(f"{path} (seed {seed}): {type(error).__name__}: {error}") from error
    return True


def _until(end: float, seed: int) -> Iterator[int]:
    while time.monotonic() < end:
        yield seed
        seed += 1


def main(arguments: Any = None) -> int:
    """0 when every file was read or refused in one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="vidseg-fuzz-"))
    try:
        results = fuzz(folder, _until(time.monotonic() + 60 * options.minutes, options.seed))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    for name in dict.fromkeys(name for name, _ in results):
        print(f"{name}: {results[name, True]} read, {results[name, False]} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
