"""mIoU and mBIoU of two folders of masks (tables 2, 3, 6, 13 and figure 4 of the HQ-SAM paper).

Here the boundary IoU is the plain IoU of the two bands, not its minimum with the mask IoU as in boundary AP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.errors import InputError
from vidseg.evaluation.parallel import run_all
from vidseg.evaluation.patches import EMPTY, Patch, cut_out, patch_of
from vidseg.masks.boundary import band_width, boundary_band
from vidseg.video.images import check_pixels

RECALL_POINTS = (0.5, 0.6, 0.7, 0.8, 0.9)
FOREGROUND = 128
"""Grey values above this one are foreground."""


@dataclass(frozen=True, slots=True)
class MaskScore:
    """IoU and boundary IoU of one image in 0..1, float32 precision; None when both masks are empty."""

    name: str
    iou: float | None
    biou: float | None


@dataclass(frozen=True, slots=True)
class MasksReport:
    """All images of two folders, and the ratio of the bands."""

    images: tuple[MaskScore, ...]
    ratio: float
    notes: tuple[str, ...]

    def summary(self) -> dict[str, float | int | None]:
        """mIoU and mBIoU over the images where they are defined; ``count``: images, ``empty``: those left out."""
        ious = [one.iou for one in self.images if one.iou is not None]
        return {
            "mIoU": float(np.mean(ious)) if ious else None,
            "mBIoU": float(np.mean(self._bious())) if ious else None,
            "count": len(self.images),
            "empty": len(self.images) - len(ious),
        }

    def recall(self, points: tuple[float, ...] = RECALL_POINTS) -> dict[str, float]:
        """Share of images with a boundary IoU above each point (figure 4)."""
        values = np.array(self._bious())
        return {f"{point:g}": float((values > point).mean()) if len(values) else 0.0 for point in points}

    def _bious(self) -> list[float]:
        return [one.biou for one in self.images if one.biou is not None]

    def protocol(self) -> dict[str, object]:
        """What was evaluated, and how."""
        return {
            "metric": "mIoU, mBIoU; means over images",
            "images": len(self.images),
            "objects": "one per image",
            "foreground": f"grey above {FOREGROUND}; files of 0 and 1, and palette files: above 0; logits above 0",
            "void": "images with both masks empty are left out",
            "boundary": f"IoU of the bands of {self.ratio:g} of the diagonal, half to even",
            "ratio": self.ratio,
            "notes": list(self.notes),
        }


def evaluate_masks(gt: Path, pred: Path, *, ratio: float = 0.02, workers: int = 1) -> MasksReport:
    """Compare ``pred/<name>.png`` (mask) or ``pred/<name>.npy`` (logits of any size) with every ``gt/<name>.png``.

    Raises:
        InputError: no or missing files, files that cannot be read, or sizes that differ.
        UsageError: a ratio outside (0, 1].
    """
    band_width(1, 1, ratio)
    for folder in (gt, pred):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    truth = sorted(gt.glob("*.png"))
    if not truth:
        raise InputError(f"{gt}: no PNG files")
    jobs = [(file, _prediction(file.stem, pred)) for file in truth]
    known = {file.stem for file in truth}
    extra = sorted(file.name for file in pred.iterdir() if file.suffix in (".png", ".npy") and file.stem not in known)
    notes = [f"{len(extra)} predictions without ground truth were ignored: {', '.join(extra[:3])}"] if extra else []
    return MasksReport(tuple(run_all(partial(_score, ratio), jobs, workers)), ratio, tuple(notes))


def mask_scores(truth: npt.NDArray[Any], guess: npt.NDArray[Any], ratio: float = 0.02) -> tuple[float, float] | None:
    """(IoU, boundary IoU) of two masks (H, W), computed in float32; None when both are empty."""
    width = band_width(truth.shape[0], truth.shape[1], ratio)
    a, b = cut_out(truth), cut_out(guess)
    if not a.area and not b.area:
        return None
    return _iou(a, b), _iou(_band(a, width), _band(b, width))


def score_mask(name: str, truth: npt.NDArray[Any], guess: npt.NDArray[Any], ratio: float = 0.02) -> MaskScore:
    """:func:`mask_scores` of the image called ``name``."""
    return MaskScore(name, *(mask_scores(truth, guess, ratio) or (None, None)))


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Grey values of a mask file, uint8 (H, W): of colours the first channel; every palette index above 0 is 255.

    A grey file with no value but 0 and 1 is taken as a mask of 0 and 1, which become 0 and 255.

    Raises:
        InputError: missing, damaged, more than 8 bits deep, or more than ``PIXEL_LIMIT`` pixels.
    """
    try:
        with Image.open(path) as image:
            check_pixels(path, image.size)
            mode, pixels = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error})") from None
    if mode in ("P", "1"):
        return np.where(pixels > 0, np.uint8(255), np.uint8(0))
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path}: colour mode {mode}: an 8-bit mask is wanted")
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    return grey * np.uint8(255) if int(grey.max(initial=0)) == 1 else grey


def read_binary(path: Path) -> npt.NDArray[np.bool_]:
    """Foreground of a mask file, bool (H, W): grey above 128, see :func:`read_grey`.

    Raises:
        InputError: as :func:`read_grey`.
    """
    return read_grey(path) > FOREGROUND


def read_logits(path: Path, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Logits (h, w) of a .npy file brought to (height, width) bilinearly (half-pixel centres), then above 0.

    Raises:
        InputError: not such a file, or values that are not finite.
    """
    import torch  # only for logits: masks need no torch

    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{path}: not a readable array ({error})") from None
    while values.ndim > 2 and len(values) == 1:  # batch and channel
        values = values[0]
    if values.ndim != 2 or not values.size or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise InputError(f"{path}: finite floating-point logits of shape (h, w) are wanted, got {values.shape}")
    logits = torch.from_numpy(values.astype(np.float32))[None, None]
    scaled = torch.nn.functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return np.asarray(scaled[0, 0].numpy() > 0)


def _prediction(stem: str, folder: Path) -> Path:
    for suffix in (".png", ".npy"):
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise InputError(f"{folder}: no prediction {stem}.png or {stem}.npy")


def _score(ratio: float, job: tuple[Path, Path]) -> MaskScore:
    truth = read_binary(job[0])
    logits = job[1].suffix == ".npy"
    guess = read_logits(job[1], truth.shape[0], truth.shape[1]) if logits else read_binary(job[1])
    if guess.shape != truth.shape:
        raise InputError(
            f"{job[1]}: {guess.shape[1]}x{guess.shape[0]} pixels, but its ground truth has "
            f"{truth.shape[1]}x{truth.shape[0]}: save masks at the original size"
        )
    return score_mask(job[0].stem, truth, guess, ratio)


def _band(patch: Patch, width: int) -> Patch:
    return patch_of(boundary_band(patch.bits, width), patch.top, patch.left) if patch.area else EMPTY


def _iou(a: Patch, b: Patch) -> float:
    common = a.common(b)
    return float(np.float32(common) / np.float32(a.area + b.area - common))
