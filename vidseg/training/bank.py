"""Decode stills, cutouts and clips once into memory, small and as uint8, for :mod:`vidseg.training.triplets`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vidseg.errors import InputError
from vidseg.training.splits import dev_clips, shows_clip
from vidseg.training.triplets import U8, Bank, Clip, Still

CLIP_SIDE = 288
STILL_SIDE = 400
SPRITE_SIDE = 256


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
    stills: list[Still] = []
    sources: list[str] = []
    masks = _masks_by_image(root / "train" / "masks")
    for path in sorted((root / "train" / "images").glob("*")):
        source = path.stem.partition("_")[0]
        if source_weights.get(source, 1.0) <= 0 or shows_clip(path.stem, (*dev, *held_out)) or path.stem not in masks:
            continue
        still = _read_still(path, masks[path.stem])
        if len(still.masks):
            stills.append(still)
            sources.append(source)
    if not stills:
        raise InputError(f"{root}: no stills with masks under train/images and train/masks")
    counts = {source: sources.count(source) for source in set(sources)}
    weights = np.array([source_weights.get(s, 1.0) / counts[s] for s in sources], np.float64)
    sprites = tuple(_read_sprite(path) for path in sorted((root / "cutouts").glob("*")))
    names = sorted(p.name for p in (root / "videos").iterdir() if (p / "frames").is_dir())
    clips = tuple(read_clip(root / "videos" / name) for name in names if name not in dev and name not in held_out)
    return Bank(tuple(stills), weights / weights.sum(), sprites, clips)


def read_clip(folder: Path, short_side: int | None = CLIP_SIDE) -> Clip:
    """All frames (JPEG) and label maps (palette PNG) of one clip, scaled down to ``short_side`` if larger."""
    frames: list[U8] = []
    labels: list[U8] = []
    for path in sorted((folder / "frames").iterdir()):
        frames.append(_fit(_open(path, "RGB"), short_side, nearest=False, short=True))
        label = np.array(Image.open(folder / "masks" / f"{path.stem}.png"), np.uint8)
        labels.append(_fit(label, short_side, nearest=True, short=True))
    if not frames:
        raise InputError(f"{folder / 'frames'}: no frames")
    return Clip(folder.name, np.stack(frames), np.stack(labels))


def _masks_by_image(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.png")):
        found.setdefault(path.stem.partition("__")[0], []).append(path)
    return found


def _read_still(path: Path, mask_paths: list[Path]) -> Still:
    rgb = _fit(_open(path, "RGB"), STILL_SIDE, nearest=False)
    masks = []
    for mask_path in mask_paths:
        mask = (_open(mask_path, "L") > 127).astype(np.uint8)
        mask = np.asarray(cv2.resize(mask, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
        if mask.sum() >= 64:
            masks.append(mask)
    return Still(rgb, np.stack(masks) if masks else np.zeros((0, *rgb.shape[:2]), np.uint8))


def _read_sprite(path: Path) -> U8:
    rgba = _fit(_open(path, "RGBA"), SPRITE_SIDE, nearest=False)
    return np.asarray(cv2.copyMakeBorder(rgba, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)), np.uint8)


def _open(path: Path, mode: str) -> U8:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error


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
