"""Training images and their masks: which file belongs to which, and reading one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from vidseg.datasets import sa1b
from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES, data_files, data_folders
from vidseg.masks.files import read_mask_values
from vidseg.names import printable
from vidseg.video.images import read_image

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Mask = npt.NDArray[np.uint8]  # (H, W), 0..255; above 128 is foreground

_LOG = logging.getLogger("vidseg")
_TEXTS = (".json", ".txt", ".xml", ".csv", ".md", ".yaml", ".yml")
"""What tools leave beside images; nobody misses it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image file with its mask files, or with one file of labels (``palette``) whose values are the objects.

    A mask file of SA-1B (.json) gives one mask.
    """

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
    """Images of one folder with their masks in another (or the same one, then PNG), sorted by name.

    An image ``name.jpg`` owns ``name.png`` and, for several objects, ``name__0.png``, ``name__1.png``, ...; an image
    that is itself called ``name__1`` owns the mask of that name. Without ``source`` an item's source is its name up to
    the first underscore. Images without a mask and masks without an image are left out, with a warning.

    Raises:
        InputError: a folder is missing, holds no image, or no image of it has a mask; two files of one name.
    """
    same = images.resolve() == masks.resolve()
    pictures = _files(images, IMAGE_SUFFIXES)
    candidates = [path for path in pictures if path.suffix.lower() == ".png"] if same else _files(masks, IMAGE_SUFFIXES)
    by_stem: dict[str, list[Path]] = {}
    for path in pictures:
        by_stem.setdefault(path.stem, []).append(path)
    owned: dict[Path, dict[str, Path]] = {}
    strays = []
    for path in candidates:
        owner = _owner(path, by_stem)
        if owner is None:
            strays.append(path)
        elif path.stem in (mine := owned.setdefault(owner, {})):
            raise InputError(f"{mine[path.stem]} and {path.name}: two masks of one name; remove one of them")
        else:
            mine[path.stem] = path
    if same:
        of_others = {path for mine in owned.values() for path in mine.values()}
        pictures = [path for path in pictures if path not in of_others]
        strays = []  # an image of its own, not a mask
    items = [
        Item(path.stem, source or path.stem.split("_")[0], path, tuple(owned[path].values()))
        for path in pictures
        if path in owned
    ]
    _count(images, masks, pictures, owned, strays)
    return items


def find_clips(root: Path, keep: Callable[[str], bool], stride: int) -> list[Item]:
    """Every ``stride``-th frame of the clips (``NAME/frames``, ``NAME/masks``) whose name ``keep`` accepts.

    Frames without a mask are left out, with a warning.
    """
    items, bare = [], []
    for clip in [path for path in data_folders(root) if keep(path.name)]:
        folder = clip / "masks"
        masks = {path.stem: path for path in _files(folder, IMAGE_SUFFIXES)} if folder.is_dir() else {}
        for frame in _files(clip / "frames", IMAGE_SUFFIXES)[::stride]:
            if frame.stem in masks:
                items.append(Item(f"{clip.name}-{frame.stem}", "video", frame, (masks[frame.stem],), palette=True))
            else:
                bare.append(frame)
    if bare:
        _warn(f"{root}: {len(bare)} of {len(bare) + len(items)} frames have no mask and are left out", bare)
    return items


def load(item: Item, max_side: int | None = None) -> Sample:
    """Decode ``item``; with ``max_side`` larger images are reduced (area average, masks too) to that long side.

    Raises:
        InputError: unreadable files, and masks whose size is not the image's.
    """
    image = read_image(item.image)
    height, width = image.shape[:2]
    masks = list(_masks(item, (width, height)))
    if max_side is not None and max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        masks = [cv2.resize(m, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False) for m in masks]
    return Sample(image.astype(np.uint8, copy=False), tuple(masks))


def check_size(mask: Path, size: tuple[int, int], image: Path, expected: tuple[int, int]) -> None:
    """Refuse a mask whose (width, height) is not that of its image (InputError)."""
    if size == expected:
        return
    turned = "; its sides are swapped: turn it as the image is" if size[::-1] == expected else ""
    raise InputError(
        f"{mask}: mask is {size[0]}x{size[1]}, its image {expected[0]}x{expected[1]} ({image.name}){turned}"
    )


def load_cutout(path: Path, max_side: int) -> tuple[Image, Mask]:
    """An image with transparency as (RGB, alpha), reduced to ``max_side``.

    Raises:
        InputError: unreadable, or without transparency.
    """
    try:
        with Pillow.open(path) as picture:
            if not picture.has_transparency_data:
                raise InputError(f"{path}: a cut-out needs transparency around its object; this image has none")
            rgba = np.array(picture.convert("RGBA"), np.uint8)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image") from error
    scale = min(1.0, max_side / max(rgba.shape[:2]))
    size = (max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale)))
    rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])


class Reader:
    """:func:`load` for a long training: an item that cannot be read is replaced by the next one that can.

    It is named in a warning once, and kept in ``damaged``.
    """

    def __init__(self, items: Sequence[Item], tries: int = 10) -> None:
        self.items, self.tries = items, tries
        self.damaged: dict[Item, str] = {}
        self._place = {item: place for place, item in enumerate(items)}

    def __call__(self, item: Item) -> Sample:
        """The decoded item, or the one in its place.

        Raises:
            InputError: nor can any of the ``tries`` items after it.
        """
        for step in range(self.tries):
            candidate = self.items[(self._place[item] + step) % len(self.items)]
            try:
                return load(candidate)
            except InputError as error:
                if candidate not in self.damaged:
                    self.damaged[candidate] = str(error)
                    _LOG.warning("%s: replaced by the next image", printable(str(error)))
        raise InputError(f"{self.damaged[item]}; nor can the {self.tries - 1} images after it be read")


def _masks(item: Item, size: tuple[int, int]) -> Iterator[Mask]:
    for path in item.masks:
        if path.suffix == ".json":
            rle = sa1b.read_mask(path)
            check_size(path, (rle.width, rle.height), item.image, size)
            yield sa1b.grey(rle)
            continue
        file = read_mask_values(path)
        check_size(path, file.values.shape[::-1], item.image, size)
        if item.palette and file.kind == "labels":
            for value in np.unique(file.values[file.values > 0]):
                yield np.where(file.values == value, 255, 0).astype(np.uint8)
        elif not item.palette or file.kind != "empty":
            yield file.grey()


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    try:
        return data_files(folder, suffixes)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder of training data") from None
    except OSError as error:
        raise InputError(f"{folder}: the folder of training data cannot be read ({error.strerror})") from error


def _owner(mask: Path, by_stem: dict[str, list[Path]]) -> Path | None:
    """The image of the mask's whole name, else that of its name before the last ``__``, and so on."""
    stem = mask.stem
    while True:
        found = [path for path in by_stem.get(stem, ()) if path != mask]
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1].name}: two images for the mask {mask.name}; rename one of them")
        if found:
            return found[0]
        stem, cut, _ = stem.rpartition("__")
        if not cut:
            return None


def _count(images: Path, masks: Path, pictures: list[Path], owned: Collection[Path], strays: list[Path]) -> None:
    """Say what of two folders leads to nothing."""
    if not pictures:
        raise InputError(f"{images}: no images (looked for {', '.join(IMAGE_SUFFIXES)})")
    bare = [path for path in pictures if path not in owned]
    example = f"{bare[0].stem}.png or {bare[0].stem}__0.png for {bare[0].name}" if bare else ""
    there = f"; there is {strays[0].name}" if strays else ""
    if len(bare) == len(pictures):
        raise InputError(
            f"{masks}: no mask for any of the {len(pictures)} images of {images}: expected {example}{there}"
        )
    if bare:
        of_all = f"{len(bare)} of {len(pictures)}"
        _warn(f"{images}: {of_all} images have no mask in {masks} (expected {example}) and are left out", bare)
    if strays:
        _warn(f"{masks}: {len(strays)} masks belong to no image and are left out", strays)
    others = [path for path in data_files(images) if path.suffix.lower() not in (*IMAGE_SUFFIXES, *_TEXTS)]
    if others:
        _warn(f"{images}: {len(others)} files are not images of a supported kind and are left out", others)


def _warn(text: str, paths: Sequence[Path], limit: int = 3) -> None:
    names = ", ".join(path.name for path in paths[:limit]) + (", ..." if len(paths) > limit else "")
    _LOG.warning("%s", printable(f"{text}: {names}"))
