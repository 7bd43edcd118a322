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

from vidseg.errors import InputError
from vidseg.evaluation.parallel import run_all
from vidseg.evaluation.patches import EMPTY, Patch, cut_out, patch_of
from vidseg.files import data_files
from vidseg.masks.boundary import band_width, boundary_band
from vidseg.masks.files import FOREGROUND, MaskFile, read_mask_values

RECALL_POINTS = (0.5, 0.6, 0.7, 0.8, 0.9)


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
            "foreground": f"above 0 in masks, palettes and label maps; soft edges above {FOREGROUND}; logits above 0",
            "void": "images with both masks empty are left out",
            "boundary": f"IoU of the bands of {self.ratio:g} of the diagonal, half to even",
            "ratio": self.ratio,
            "notes": list(self.notes),
        }


def evaluate_masks(gt: Path, pred: Path, *, ratio: float = 0.02, workers: int = 1) -> MasksReport:
    """Compare ``pred/<name>.png`` (mask) or ``pred/<name>.npy`` (logits of any size) with every ``gt/<name>.png``.

    The case of the endings does not matter.

    Raises:
        InputError: no or missing files, files that cannot be read, or sizes that differ.
        UsageError: a ratio outside (0, 1].
    """
    band_width(1, 1, ratio)
    for folder in (gt, pred):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    truth = data_files(gt, (".png",))
    if not truth:
        raise InputError(f"{gt}: no PNG files")
    predictions = data_files(pred, (".npy", ".png"))
    of_stem = {suffix: {p.stem: p for p in predictions if p.suffix.lower() == suffix} for suffix in (".npy", ".png")}
    best = of_stem[".npy"] | of_stem[".png"]
    missing = next((file.stem for file in truth if file.stem not in best), None)
    if missing is not None:
        raise InputError(f"{pred}: no prediction {missing}.png or {missing}.npy")
    jobs = [(file, best[file.stem]) for file in truth]
    known = {file.stem for file in truth}
    extra = [file.name for file in predictions if file.stem not in known]
    notes = [f"{len(extra)} predictions without ground truth were ignored: {', '.join(extra[:3])}"] if extra else []
    scored = list(run_all(partial(_score, ratio), jobs, workers))
    if not any(one.reaches for one in scored):  # then 128 is the value of a class, as 38 would be
        return MasksReport(tuple(one.score for one in scored), ratio, tuple(notes))
    empty = [one.strict.name for one in scored if one.strict is not None]
    if empty:
        notes.append(
            f"{len(empty)} files of 0 and 128 count as empty, as no value is above 128: {', '.join(empty[:3])}"
        )
    return MasksReport(tuple(one.strict or one.score for one in scored), ratio, tuple(notes))


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


def read_binary(path: Path) -> npt.NDArray[np.bool_]:
    """Foreground of a mask file, bool (H, W), by the rule of :mod:`vidseg.masks.files`; 128 alone is not above 128.

    Raises:
        InputError: as :func:`vidseg.masks.files.read_mask_values`.
    """
    file = read_mask_values(path)
    return file.values > FOREGROUND if _is_at_threshold(file) else file.foreground()


def _is_at_threshold(file: MaskFile) -> bool:
    """A mask of 0 and 128: empty to the published evaluator, though 38 or 128 may well be the value of a class."""
    return file.kind == "binary" and int(file.values.max()) == FOREGROUND


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
        raise InputError(f"{path}: expected finite floating-point logits of shape (h, w), got {values.shape}")
    logits = torch.from_numpy(values.astype(np.float32))[None, None]
    scaled = torch.nn.functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return np.asarray(scaled[0, 0].numpy() > 0)


@dataclass(frozen=True, slots=True)
class _Scored:
    """``strict``: with 128 as background. ``reaches``: whether the ground truth has grey levels above 128."""

    score: MaskScore
    strict: MaskScore | None
    reaches: bool


def _score(ratio: float, job: tuple[Path, Path]) -> _Scored:
    file = read_mask_values(job[0])
    truth = file.foreground()
    logits = job[1].suffix.lower() == ".npy"
    guess = read_logits(job[1], truth.shape[0], truth.shape[1]) if logits else read_mask_values(job[1]).foreground()
    if guess.shape != truth.shape:
        raise InputError(
            f"{job[1]}: {guess.shape[1]}x{guess.shape[0]} pixels, but its ground truth has "
            f"{truth.shape[1]}x{truth.shape[0]}: save masks at the original size"
        )
    name = job[0].stem
    strict = score_mask(name, np.zeros_like(truth), guess, ratio) if _is_at_threshold(file) else None
    reaches = FOREGROUND < int(file.values.max(initial=0)) <= 255
    return _Scored(score_mask(name, truth, guess, ratio), strict, reaches)


def _band(patch: Patch, width: int) -> Patch:
    return patch_of(boundary_band(patch.bits, width), patch.top, patch.left) if patch.area else EMPTY


def _iou(a: Patch, b: Patch) -> float:
    common = a.common(b)
    return float(np.float32(common) / np.float32(a.area + b.area - common))
