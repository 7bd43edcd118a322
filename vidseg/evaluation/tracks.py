"""J and F of objects one by one: masks that are files of their own, one id of a label map, or run-lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.evaluation.contours import compare, contour_radius, outline
from vidseg.evaluation.label_maps import LabelMap, read_label_map
from vidseg.masks.rle import decode
from vidseg.types import Rle

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskRef:
    """Where a mask is: what is ``value`` in the file ``path`` (None: all but 0, a file of one object), or ``rle``."""

    path: Path | None = None
    value: int | None = None
    rle: Rle | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """One object of a video: its evaluated ``frames``, each with the masks of ground truth and prediction.

    ``from_first_seen``: frames before the object is in either count nothing; else all count. ``void``: the value of
    pixels in the ground truth's file that are left out of both masks.
    """

    video: str
    id: int | str
    frames: tuple[tuple[str, MaskRef, MaskRef], ...]
    from_first_seen: bool
    void: int | None = None


@dataclass(frozen=True, slots=True)
class TrackScores:
    """J and F in 0..1 for each of the ``frames`` that count; none where the ground truth never has the object."""

    frames: tuple[str, ...]
    j: tuple[float, ...]
    f: tuple[float, ...]


def score_track(track: Track) -> TrackScores:
    """Compare the masks of a track frame by frame.

    Raises:
        InputError: a file cannot be read, has more than one object, or another size than its ground truth.
    """
    names: list[str] = []
    j: list[float] = []
    f: list[float] = []
    in_truth = False
    for name, truth_ref, guess_ref in track.frames:
        truth, guess = _masks(truth_ref, guess_ref, track.void)
        in_truth |= bool(truth.any())
        if track.from_first_seen and not names and not truth.any() and not guess.any():
            continue
        radius = contour_radius(*truth.shape)
        one_j, one_f = compare(outline(truth, radius), outline(guess, radius))
        names.append(name)
        j.append(one_j)
        f.append(one_f)
    if track.from_first_seen and not in_truth:
        return TrackScores((), (), ())
    return TrackScores(tuple(names), tuple(j), tuple(f))


def _masks(truth_ref: MaskRef, guess_ref: MaskRef, void: int | None) -> tuple[Mask, Mask]:
    labels = read_label_map(truth_ref.path) if truth_ref.path is not None else None
    found = _mask(truth_ref, labels), _mask(guess_ref, None)
    size = next((mask.shape for mask in found if mask is not None), (1, 1))
    truth, guess = (np.zeros(size, bool) if mask is None else mask for mask in found)
    if guess.shape != truth.shape:
        raise InputError(
            f"{guess_ref.path or 'run-lengths'}: {guess.shape[1]}x{guess.shape[0]} pixels, but its ground truth has "
            f"{truth.shape[1]}x{truth.shape[0]}: save masks at the original size"
        )
    if void is not None and labels is not None:
        keep = labels != void
        return truth & keep, guess & keep
    return truth, guess


def _mask(ref: MaskRef, labels: LabelMap | None) -> Mask | None:
    """The mask; None for a reference to nothing."""
    if ref.rle is not None:
        return decode(ref.rle).astype(bool)
    if ref.path is None:
        return None
    labels = read_label_map(ref.path) if labels is None else labels
    if ref.value is not None:
        return np.asarray(labels == ref.value)
    mask = np.asarray(labels != 0)
    if mask.any() and labels[mask].min() != labels[mask].max():
        raise InputError(f"{ref.path}: more than one object: SA-V has a file of its own for every object")
    return mask
