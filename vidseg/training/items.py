"""Training images and their masks: an index of files, and reading one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Mask = npt.NDArray[np.uint8]  # (H, W), 0..255; above 128 is foreground

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

#: The six sets of HQSeg-44K (seven folders) and its validation sets: (images, masks) below the data root.
HQSEG_TRAIN = {
    "dis5k": ("DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt"),
    "thinobject": ("thin_object_detection/ThinObject5K/images_train", "thin_object_detection/ThinObject5K/masks_train"),
    "fss": ("cascade_psp/fss_all", "cascade_psp/fss_all"),
    "duts-tr": ("cascade_psp/DUTS-TR", "cascade_psp/DUTS-TR"),
    "duts-te": ("cascade_psp/DUTS-TE", "cascade_psp/DUTS-TE"),
    "ecssd": ("cascade_psp/ecssd", "cascade_psp/ecssd"),
    "msra": ("cascade_psp/MSRA_10K", "cascade_psp/MSRA_10K"),
}
HQSEG_VAL = {
    "dis5k-vd": ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "coift": ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "hrsod": ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "thinobject-te": (
        "thin_object_detection/ThinObject5K/images_test",
        "thin_object_detection/ThinObject5K/masks_test",
    ),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One image file with its mask files, or with one palette file whose indices are the objects."""

    name: str
    source: str
    image: Path
    masks: tuple[Path, ...]
    palette: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A decoded item: RGB image and one mask per object, all of the same size."""

    image: Image
    masks: tuple[Mask, ...]


def find_pairs(images: Path, masks: Path, source: str | None = None) -> list[Item]:
    """Images of one folder with their masks in another (or the same one), sorted by name.

    An image ``name.jpg`` owns ``name.png`` or, for several objects, ``name__0.png``, ``name__1.png``, ... Without
    ``source`` an item's source is its name up to the first underscore. Images without a mask are left out.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of training data")
    owned: dict[str, list[Path]] = {}
    for path in sorted(masks.iterdir()):
        if path.suffix.lower() == ".png":
            owned.setdefault(path.stem.split("__")[0], []).append(path)
    items = []
    for path in sorted(images.iterdir()):
        paths = tuple(p for p in owned.get(path.stem, ()) if p != path)
        if path.suffix.lower() in _IMAGE_SUFFIXES and paths:
            items.append(Item(path.stem, source or path.stem.split("_")[0], path, paths))
    return items


def find_clips(root: Path, keep: Callable[[str], bool], stride: int) -> list[Item]:
    """Every ``stride``-th frame of the clips (``NAME/frames``, ``NAME/masks``) whose name ``keep`` accepts."""
    items = []
    for clip in sorted(p for p in root.iterdir() if p.is_dir() and keep(p.name)):
        for frame in sorted((clip / "frames").iterdir())[::stride]:
            mask = clip / "masks" / f"{frame.stem}.png"
            if mask.exists():
                items.append(Item(f"{clip.name}-{frame.stem}", "video", frame, (mask,), palette=True))
    return items


def _read(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    data = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flags)
    if data is None:
        raise InputError(f"{path}: not a readable image")
    return data.astype(np.uint8, copy=False)


def _masks(item: Item) -> Iterator[Mask]:
    for path in item.masks:
        if item.palette:
            from PIL import Image as Pillow

            with Pillow.open(path) as file:
                indices = np.asarray(file)
            for index in np.unique(indices[(indices > 0) & (indices < 255)]):
                yield np.where(indices == index, 255, 0).astype(np.uint8)
        else:
            mask = _read(path, cv2.IMREAD_UNCHANGED)
            yield mask if mask.ndim == 2 else np.ascontiguousarray(mask[..., 0])


def load(item: Item, max_side: int | None = None) -> Sample:
    """Decode ``item``; with ``max_side`` larger images are reduced (area average, masks too) to that long side.

    Raises ``InputError`` for unreadable files and for masks whose size is not the image's.
    """
    image = cv2.cvtColor(_read(item.image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    masks = list(_masks(item))
    for mask in masks:
        if mask.shape != (height, width):
            raise InputError(f"{item.masks[0]}: mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}")
    if max_side is not None and max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        masks = [cv2.resize(m, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False) for m in masks]
    return Sample(image.astype(np.uint8, copy=False), tuple(masks))


def load_cutout(path: Path, max_side: int) -> tuple[Image, Mask]:
    """An RGBA picture as (RGB, alpha), reduced to ``max_side``."""
    rgba = cv2.cvtColor(_read(path, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    scale = min(1.0, max_side / max(rgba.shape[:2]))
    size = (max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale)))
    rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
