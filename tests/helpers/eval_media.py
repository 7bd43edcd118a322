"""What the tests of the evaluation share: reference numbers, and small label maps and json files made on the spot."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

import paths

FIXTURES = paths.FIXTURES / "eval"


def unpack(name: str, folder: Path) -> Path:
    """Unpack a folder of reference inputs and numbers."""
    with zipfile.ZipFile(FIXTURES / f"{name}.zip") as file:
        file.extractall(folder / name)
    return folder / name


def expected(folder: Path) -> Any:
    return json.loads((folder / "expected.json").read_text())


def save_labels(folder: Path, maps: Sequence[np.ndarray], start: int = 0) -> Path:
    """Write label maps as DAVIS palette PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, labels in enumerate(maps, start):
        image = Image.fromarray(labels.astype(np.uint8), "P")
        image.putpalette([v for k in range(256) for v in (k, 255 - k, 128)])
        image.save(folder / f"{t:05d}.png")
    return folder


def square(size: tuple[int, int], top: int, left: int, side: int, value: int = 1) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    labels[top : top + side, left : left + side] = value
    return labels


def rle(mask: np.ndarray) -> dict[str, Any]:
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in coded["size"]], "counts": coded["counts"].decode()}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def tube_truth(**changes: Any) -> dict[str, Any]:
    """One video of two frames, 40x60, with one object: a square of 10 pixels."""
    mask = square((40, 60), 10, 10, 10)
    annotation = {
        "id": 1,
        "video_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentations": [rle(mask), rle(mask)],
        "areas": [100, 100],
    }
    return {
        "videos": [{"id": 1, "height": 40, "width": 60, "length": 2, "file_names": ["a", "b"]}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{**annotation, **changes}],
    }


def tube_result(**changes: Any) -> dict[str, Any]:
    mask = square((40, 60), 10, 10, 10)
    return {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [rle(mask), rle(mask)], **changes}


def image_truth(annotations: Sequence[Mapping[str, Any]], **image: Any) -> dict[str, Any]:
    """One image of 100x100 pixels with the given annotations; ids are numbered from 1."""
    rows = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": float(coco_mask.area(row["segmentation"])),
            **row,
        }
        for k, row in enumerate(annotations, 1)
    ]
    return {
        "images": [{"id": 1, "height": 100, "width": 100, **image}],
        "categories": [{"id": 1, "name": "one", "frequency": "f"}, {"id": 2, "name": "two", "frequency": "r"}],
        "annotations": rows,
    }


def image_result(mask: np.ndarray, score: float = 0.5, category: int = 1, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "score": score, "segmentation": rle(mask)}
