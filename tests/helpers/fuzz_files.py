"""Mutated JSON, XML, YAML, CSV, PNG and weight files for every reader of foreign files, until the time is over.

``python tests/helpers/fuzz_files.py [--minutes 10] [--seed 0]``: exits with 1 at the first file that raises anything
but vidseg's own one-line errors, and keeps it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import paths
from eval_media import image_result, image_truth, rle, square, tube_result, tube_truth
from fuzz_media import mutate
from toys import tiny_sam
from vidseg.annotations import read_annotations
from vidseg.classes import read_classes
from vidseg.config import RunConfig
from vidseg.errors import VidsegError
from vidseg.evaluation.image_ap import evaluate_coco
from vidseg.evaluation.label_maps import read_label_map
from vidseg.evaluation.tube_ap import evaluate_tubes
from vidseg.loading import load_sam
from vidseg.masks.annotation import read_annotation
from vidseg.options import load_yaml
from vidseg.outputs.journal import read_journal
from vidseg.sam.build import save_sam
from vidseg.training.recipe import Recipe
from vidseg.types import VideoInfo
from vidseg.weights.read import read_checkpoint, read_weights
from vidseg_pipelines.batch.inputs import expand
from vidseg_pipelines.commands.recipes import load_recipe
from vidseg_pipelines.manifest import read_manifest
from vidseg_trackers.boxes.files import read_boxes
from vidseg_trackers.xmem.training.config import TrainConfig

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
    run = {"status": "done", "config": {}, "input": {}, "prompts": {}, "weights": {}, "frames": {"count": 1}}
    truth = image_truth([{"segmentation": rle(MASK), "bbox": [3, 2, 6, 6]}], height=12, width=16)
    (folder / "gt.json").write_bytes(_text(truth))
    save_sam(tiny_sam(), folder / "sam.safetensors")
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
        "sam.safetensors": (_saved(folder / "sam.safetensors"), load_sam),
        "hq-recipe.yaml": (_recipe("compact-hq"), lambda path: load_recipe(Recipe, path, "hq")),
        "xmem-recipe.yaml": (_recipe("xmem-compact"), lambda path: load_recipe(TrainConfig, path, "xmem")),
        "truth.json": (_saved(folder / "gt.json"), lambda path: evaluate_coco(path, folder / "good.json")),
        "results.json": (_saved(folder / "good.json"), lambda path: evaluate_coco(folder / "gt.json", path)),
        "tubes.json": (_saved(folder / "tubes.json"), lambda path: evaluate_tubes(path, folder / "good-tubes.json")),
        "tracks.json": (_saved(folder / "good-tubes.json"), lambda path: evaluate_tubes(folder / "tubes.json", path)),
        **_labels(),
    }


def _labels() -> dict[str, tuple[bytes, Reader]]:
    """What labelling tools save of one object on frame 0 of a video of 16x12 pixels."""
    video = VideoInfo(16, 12, Fraction(25), 2, frames_are_listed=True, name="zoo")
    corners = [[3, 2], [9, 2], [9, 8]]
    flat = [x for point in corners for x in point]
    shape = {"label": "dog", "points": corners, "group_id": 1, "shape_type": "polygon"}
    labelme = {"shapes": [shape], "imagePath": "zoo_00000.jpg", "imageHeight": 12, "imageWidth": 16}
    xml = (
        '<annotations><track id="0" label="dog"><polygon frame="0" outside="0" points="3,2;9,2;9,8"/></track>'
        '<image id="1" name="zoo_00001.jpg" width="16" height="12"><box label="cat" xtl="1" ytl="1" xbr="5" ybr="6"/>'
        "</image></annotations>"
    )
    coco = {
        "images": [{"id": 1, "file_name": "zoo_00000.jpg", "width": 16, "height": 12}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [flat], "bbox": [3, 2, 6, 6]}],
    }
    polygon = {"id": 0, "type": "polygon", "points": flat, "label_id": 0, "attributes": {"track_id": 1}}
    items = [{"id": "zoo_00000", "annotations": [polygon], "image": {"path": "zoo_00000.jpg", "size": [12, 16]}}]
    datumaro = {"categories": {"label": {"labels": [{"name": "dog"}]}}, "items": items}
    saved = {"labelme": _text(labelme), "cvat": xml.encode(), "coco": _text(coco), "datumaro": _text(datumaro)}
    return {
        f"from-{name}.{'xml' if name == 'cvat' else 'json'}": (data, partial(read_annotations, name, video=video))
        for name, data in saved.items()
    }


def _recipe(name: str) -> bytes:
    return (paths.ROOT / "configs" / "training" / f"{name}.yaml").read_bytes()


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
    for name, (data, reader) in originals.items():
        (folder / "mutated" / name).write_bytes(data)
        reader(folder / "mutated" / name)  # else nothing behind the first check is ever reached
    for seed in seeds:
        for name, (data, reader) in originals.items():
            path = folder / "mutated" / name
            path.write_bytes(_other_values(data, seed) if seed % 2 and name.endswith(".json") else mutate(data, seed))
            begun = time.monotonic()
            results[name, _reads(path, reader, seed)] += 1
            assert time.monotonic() - begun < SLOW_S, f"{path} (seed {seed}) takes long"
    return results


ODD = (None, True, -1, 0, 0.5, 1e308, 2**63, 10**400, "", "x", "1", [], [[]], {}, [None], {"a": 1})
"""Values where others are expected."""


def _other_values(data: bytes, seed: int) -> bytes:
    """Valid JSON still, with one or two values that are something else, or left out."""
    rng, whole = random.Random(seed), [json.loads(data)]
    for _ in range(rng.randint(1, 2)):
        places = list(_places(whole))
        inside, key = rng.choice(places)
        if rng.random() < 0.2 and isinstance(inside, dict):
            del inside[key]
        else:
            inside[key] = deepcopy(rng.choice(ODD))
    return json.dumps(whole[0]).encode()


def _places(inside: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
        yield inside, key
        if isinstance(value, dict | list):
            yield from _places(value)


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
