"""Label maps on disk: folders of PNG files (.png, .PNG) whose pixel value is the object id, one folder per sequence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.evaluation.png import plain_pixels
from vidseg.files import counts, data_files, data_folders
from vidseg.limits import PIXEL_LIMIT, check_pixels
from vidseg.text import read_text

LabelMap = npt.NDArray[np.unsignedinteger[Any]]
_PNG = (".png",)
_BELOW = ("Annotations", "valid/Annotations", "val/Annotations")
"""Where the official roots of YouTube-VOS, MOSE and LVOS have the folders of their sequences."""
_DEEP = ("I;16", "I")  # how Pillow calls 16-bit grey


@dataclass(frozen=True, slots=True)
class TruthFolder:
    """Where a ground truth stands: ``layout`` says how it was found, ``folders`` maps each sequence to its folder."""

    layout: str
    folders: dict[str, Path]


@dataclass(frozen=True, slots=True)
class FramePair:
    """The label maps of one frame, both cut to the window that holds all their objects and one pixel of background.

    ``truth``, ``guess``: uint8 or uint16 (h, w), ids; the window's pixel (0, 0) stands at (``top``, ``left``) of a
    frame of ``height`` x ``width`` pixels. Where the frame ends there is no pixel of background.
    """

    truth: LabelMap
    guess: LabelMap
    top: int
    left: int
    height: int
    width: int


def read_label_map(path: Path) -> LabelMap:
    """Read a palette or grey PNG as object ids (H, W), uint8, or uint16 of 16-bit grey; palettes are kept as indices.

    Raises:
        InputError: the file is missing, damaged, or has colours instead of ids.
    """
    try:
        size = path.stat().st_size
        if size > PIXEL_LIMIT:  # before it is read: no label map needs so much
            raise InputError(f"{path}: a file of {size:,} bytes is not a label map; the limit is {PIXEL_LIMIT:,}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error.strerror})") from None
    plain = plain_pixels(data, PIXEL_LIMIT)
    return plain if plain is not None else _decode(path, data)


def read_pair(truth: Path, guess: Path) -> FramePair:
    """Read the label maps of one frame.

    Raises:
        InputError: as :func:`read_label_map`, or the two do not have the same size.
    """
    maps = read_label_map(truth), read_label_map(guess)
    height, width = maps[0].shape
    if maps[1].shape != maps[0].shape:
        raise InputError(
            f"{guess}: {maps[1].shape[1]}x{maps[1].shape[0]} pixels, but its ground truth has {width}x{height}: "
            "save masks at the original size"
        )
    boxes = [(x, y, x + w, y + h) for x, y, w, h in map(_bounds, maps) if w]
    if not boxes:
        nothing = np.zeros((0, 0), np.uint8)
        return FramePair(nothing, nothing, 0, 0, height, width)
    left, top, right, bottom = (
        max(0, min(box[0] for box in boxes) - 1),
        max(0, min(box[1] for box in boxes) - 1),
        min(width, max(box[2] for box in boxes) + 1),
        min(height, max(box[3] for box in boxes) + 1),
    )
    gt, pred = (np.ascontiguousarray(labels[top:bottom, left:right]) for labels in maps)
    return FramePair(gt, pred, top, left, height, width)


def _bounds(labels: LabelMap) -> Sequence[int]:
    """Left, top, width and height of everything but background."""
    return cv2.boundingRect(labels if labels.dtype == np.uint8 else (labels != 0).view(np.uint8))


def _decode(path: Path, data: bytes) -> LabelMap:
    """What Pillow makes of a file that is not plain."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.size, PIXEL_LIMIT)
            image.load()
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image{'' if data else ' (an empty file)'}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable image ({error})") from None
    if image.mode not in ("P", "L", "1", *_DEEP):
        raise InputError(
            f"{path}: colour mode {image.mode}: a label map must be a palette (P), 8-bit (L) or 16-bit grey PNG whose "
            "pixel value is the object id"
        )
    return np.asarray(image).astype(np.uint16 if image.mode in _DEEP else np.uint8, copy=False)


def frame_folder(folder: Path) -> Path:
    """The folder that holds the PNG files of a sequence: ``folder/masks`` if there are any, else ``folder``."""
    masks = folder / "masks"
    return masks if masks.is_dir() and data_files(masks, _PNG) else folder


def frame_files(folder: Path) -> list[Path]:
    """The PNG files of a sequence in order of their names.

    Raises:
        InputError: there are none, or two of one name.
    """
    files = _by_stem(frame_folder(folder))
    if not files:
        raise InputError(f"{folder}: no PNG files (neither there nor in its folder masks/)")
    return list(files.values())


def _by_stem(folder: Path) -> dict[str, Path]:
    """The PNG files of a folder by their names without the suffix, whatever its case."""
    files: dict[str, Path] = {}
    for path in data_files(folder, _PNG):
        if path.stem in files:
            raise InputError(f"{folder}: {files[path.stem].name} and {path.name} are files of the same frame")
        files[path.stem] = path
    return files


def predicted_files(truth: Sequence[Path], folder: Path) -> list[Path]:
    """The predicted file of every ground-truth file, by name.

    Raises:
        InputError: the folder or a frame is missing.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no predictions for this sequence: expected a folder of PNG files named like its frames"
        )
    there = frame_folder(folder)
    present = _by_stem(there)
    missing = [path.name for path in truth if path.stem not in present]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"{there}: {len(missing)} of {len(truth)} evaluated frames have no prediction: {shown}")
    return [present[path.stem] for path in truth]


def find_truth(root: Path, annotations: str = "Annotations", split: str = "val", year: str = "2017") -> TruthFolder:
    """Find the sequences of a data set under ``root``.

    Understood are a DAVIS root (``root/<annotations>/480p/<sequence>/*.png`` with the sequences of
    ``root/ImageSets/<year>/<split>.txt``), plain folders (``root/<sequence>/masks/*.png`` or
    ``root/<sequence>/*.png``, all sequences), and the roots of YouTube-VOS, MOSE and LVOS, which have these in
    ``Annotations``, or one level further down in that of their validation set.

    Raises:
        InputError: nothing found, or a sequence of the split has no ground truth.
        UsageError: unknown split.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of ground truth")
    davis = root / annotations / "480p"
    if davis.is_dir():
        return TruthFolder(
            f"DAVIS root, {annotations}/480p, ImageSets/{year}/{split}.txt", _split(root, davis, split, year)
        )
    if (root / "ImageSets").is_dir():
        raise InputError(f"{root}: a DAVIS root, but it has no folder {annotations}/480p")
    if folders := _sequences(root):
        return TruthFolder("plain folders, one per sequence", folders)
    for place in _BELOW:
        if folders := _sequences(root / place):
            return TruthFolder(f"{place}, one folder per sequence", folders)
    if data_files(root, _PNG):
        raise InputError(f"{root} is one sequence: name the folder of all sequences, {root.resolve().parent}")
    raise InputError(
        f"{root}: no ground truth: expected a DAVIS root ({annotations}/480p and ImageSets/{year}/{split}.txt) or "
        "folders <sequence>/masks/*.png or <sequence>/*.png"
    )


def _sequences(folder: Path) -> dict[str, Path]:
    """The folders of ``folder`` that hold label maps, by name."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in data_folders(folder) if data_files(frame_folder(path), _PNG)}


def _split(root: Path, davis: Path, split: str, year: str) -> dict[str, Path]:
    listing = root / "ImageSets" / year / f"{split}.txt"
    if not listing.is_file():
        allowed = sorted(path.stem for path in listing.parent.glob("*.txt") if counts(path.name))
        raise UsageError(f"unknown split '{split}'{did_you_mean(split, allowed)}: {listing.parent} has {allowed}")
    names = [line.strip() for line in read_text(listing).split("\n") if line.strip()]
    if not names:
        raise InputError(f"{listing}: no sequences in it")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{listing}: sequence '{repeated[0]}' is listed more than once")
    for name in names:
        if not (davis / name).is_dir():
            raise InputError(f"{davis}: sequence '{name}' of {listing.name} has no folder there")
    return {name: davis / name for name in names}
