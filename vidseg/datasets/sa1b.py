"""SA-1B: folders of NAME.jpg with NAME.json, in which every mask of the image is a run-length code."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.masks.rle import decode, from_coco
from vidseg.text import read_json
from vidseg.types import Rle


def find_images(folder: Path, sample: int, seed: int) -> list[Path]:
    """The images below ``folder`` that have a json file beside them, sorted; of more than ``sample`` so many at random.

    ``sample`` 0 takes all.

    Raises:
        InputError: no such folder, or no such image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of SA-1B (NAME.jpg with NAME.json, in any folders below)")
    images = sorted(path for path in folder.rglob("*.jpg") if path.with_suffix(".json").is_file())
    if not images:
        raise InputError(f"{folder}: no NAME.jpg with NAME.json below it, as SA-1B has them")
    if not 0 < sample < len(images):
        return images
    chosen = np.random.default_rng(seed).choice(len(images), sample, replace=False)
    return [images[i] for i in sorted(chosen)]


def read_mask(path: Path) -> Rle:
    """One mask of an image: of the annotations in its json file always the same one, as good as drawn at random.

    Raises:
        InputError: no json of SA-1B, or the mask is no run-length code.
    """
    data = read_json(path)
    rows = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: no list of 'annotations', as SA-1B has it")
    number = zlib.crc32(path.stem.encode()) % len(rows)
    code = rows[number].get("segmentation") if isinstance(rows[number], dict) else None
    try:
        return from_coco(code)
    except InputError as error:
        raise InputError(f"{path}: annotation {number}: {error}") from None


def grey(rle: Rle) -> npt.NDArray[np.uint8]:
    """A mask (H, W) of 0 and 255."""
    return decode(rle).astype(np.uint8) * np.uint8(255)
