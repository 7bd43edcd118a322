"""Decode stills, cutouts and clips once into memory, small and as uint8, for :mod:`.sequences`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.datasets.pairs import Item, check_size, find_pairs, load, load_cutout
from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES, data_files, data_folders
from vidseg.masks.files import read_mask_values
from vidseg.names import printable
from vidseg.training.check import check_items
from vidseg.training.splits import dev_clips, shows_clip
from vidseg.video.images import read_image

U8 = npt.NDArray[np.uint8]

CLIP_SIDE = 288
STILL_SIDE = 400
SPRITE_SIDE = 256
MIN_AREA = 64
"""Pixels that a mask of a still needs, once it is scaled down."""


@dataclass(frozen=True)
class Still:
    """An image (H, W, 3) with K object masks (K, H, W) of 0/1."""

    rgb: U8
    masks: U8


@dataclass(frozen=True)
class Clip:
    """Consecutive frames (T, H, W, 3) with label maps (T, H, W), 0 = background."""

    name: str
    frames: U8
    labels: U8


@dataclass(frozen=True)
class Bank:
    """All decoded material. ``weights`` are the sampling weights of ``stills``; ``sprites`` are RGBA images."""

    stills: tuple[Still, ...]
    weights: npt.NDArray[np.float64]
    sprites: tuple[U8, ...]
    clips: tuple[Clip, ...]


def load_bank(root: Path, *, source_weights: Mapping[str, float], held_out: tuple[str, ...]) -> Bank:
    """Read ``root``/{train,cutouts,videos} without the dev third and without the clips in ``held_out``.

    Stills are named ``<source>_<id>``; ``source_weights`` gives the share of each source in sampling (0 leaves it
    out, absent sources count as 1). Stills that show a clip of the dev third are left out too.

    Raises:
        InputError: nothing to train on, or a file that cannot be read.
    """
    if not (root / "videos").is_dir():
        raise InputError(f"{root}: no folder videos/ with clips")
    dev = dev_clips(root / "videos")
    items = [
        item
        for item in find_pairs(root / "train" / "images", root / "train" / "masks")
        if source_weights.get(item.source, 1.0) > 0 and not shows_clip(item.name, (*dev, *held_out))
    ]
    check_items(items)
    read = [(item, _read_still(item)) for item in items]
    stills = [(item.source, still) for item, still in read if len(still.masks)]
    if not stills:
        raise InputError(f"{root}: no stills with masks under train/images and train/masks")
    if len(stills) < len(read):
        small = [item.image.name for item, still in read if not len(still.masks)]
        text = f"{len(small)} of {len(read)} stills have no mask of {MIN_AREA} pixels and are left out: {small[0]}"
        logging.getLogger("vidseg").warning("%s", printable(text))
    counts = Counter(source for source, _ in stills)
    weights = np.array([source_weights.get(source, 1.0) / counts[source] for source, _ in stills], np.float64)
    cutouts = root / "cutouts"
    pictures = data_files(cutouts, IMAGE_SUFFIXES) if cutouts.is_dir() else []
    sprites = tuple(_read_sprite(path) for path in pictures)
    clips = tuple(
        read_clip(folder)
        for folder in data_folders(root / "videos")
        if folder.name not in (*dev, *held_out) and (folder / "frames").is_dir()
    )
    return Bank(tuple(still for _, still in stills), weights / weights.sum(), sprites, clips)


def read_clip(folder: Path, short_side: int | None = CLIP_SIDE) -> Clip:
    """All frames and label maps (``frames/NAME.jpg``, ``masks/NAME.png``) of one clip, scaled down to ``short_side``.

    Raises:
        InputError: no frames, a frame without a mask, a mask of another size, or more than 255 objects.
    """
    frames: list[U8] = []
    labels: list[U8] = []
    for path in data_files(folder / "frames", IMAGE_SUFFIXES):
        rgb = read_image(path)
        mask = folder / "masks" / f"{path.stem}.png"
        values = _labels(mask)
        check_size(mask, values.shape[::-1], path, rgb.shape[1::-1])
        frames.append(_fit(rgb, short_side, nearest=False, short=True))
        labels.append(_fit(values, short_side, nearest=True, short=True))
    if not frames:
        raise InputError(f"{folder / 'frames'}: no frames")
    return Clip(folder.name, np.stack(frames), np.stack(labels))


def _labels(path: Path) -> U8:
    file = read_mask_values(path)
    if file.kind != "labels":
        return file.foreground().astype(np.uint8)
    if int(file.values.max()) > 255:
        raise InputError(f"{path}: object {int(file.values.max())}; at most 255 are read here")
    return file.values.astype(np.uint8)


def _read_still(item: Item) -> Still:
    sample = load(item)
    rgb = _fit(sample.image, STILL_SIDE, nearest=False)
    size = rgb.shape[1::-1]
    binary = [(mask > 128).astype(np.uint8) for mask in sample.masks]
    masks = [np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8) for mask in binary]
    masks = [mask for mask in masks if mask.sum() >= MIN_AREA]
    return Still(rgb, np.stack(masks) if masks else np.zeros((0, *rgb.shape[:2]), np.uint8))


def _read_sprite(path: Path) -> U8:
    rgba = np.dstack(load_cutout(path, SPRITE_SIDE))
    return np.asarray(cv2.copyMakeBorder(rgba, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)), np.uint8)


def _fit(image: U8, side: int | None, *, nearest: bool, short: bool = False) -> U8:
    """Scale down so that the longer (or shorter) side is at most ``side``; never up."""
    if side is None:
        return image
    height, width = image.shape[:2]
    factor = side / (min(height, width) if short else max(height, width))
    if factor >= 1:
        return image
    size = round(width * factor), round(height * factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA), np.uint8)
