"""J&F of YouTube-VOS and MOSE like sets: objects may appear in any frame, annotations may be sparse.

The numbers are those of the public ``vos-benchmark`` (scale 0..100). It differs from DAVIS in what counts: every id of
the ground truth is an object (255 too), an object counts from the first evaluated frame where the ground truth or the
prediction has it, and predicted ids that the ground truth does not have are ignored.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg.errors import InputError
from vidseg.evaluation.contours import TOLERANCE, compare, contour_radius, outlines
from vidseg.evaluation.davis import check_sequences
from vidseg.evaluation.label_maps import LabelMap, find_truth, frame_files, predicted_files, read_pair
from vidseg.evaluation.parallel import run_all


@dataclass(frozen=True, slots=True)
class VosObject:
    """One object: J and F in 0..1 for each of its ``frames`` (names)."""

    sequence: str
    id: int
    frames: tuple[str, ...]
    j: tuple[float, ...]
    f: tuple[float, ...]

    def means(self) -> tuple[float, float]:
        """(J, F), mean over the frames, 0..100."""
        return float(np.mean(self.j)) * 100, float(np.mean(self.f)) * 100


@dataclass(frozen=True, slots=True)
class VosReport:
    """All objects of a data set, and how they were evaluated."""

    layout: str
    sequences: int
    frames: int
    skip_ends: bool
    objects: tuple[VosObject, ...]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, float]:
        """J&F, J and F in 0..100: unweighted means over objects."""
        j, f = np.mean([one.means() for one in self.objects], axis=0).tolist()
        return {"J&F": (j + f) / 2, "J": j, "F": f}

    def protocol(self) -> dict[str, object]:
        """What was evaluated, and how."""
        return {
            "metric": "vos-benchmark J&F (0..100); means over objects",
            "ground truth": self.layout,
            "sequences": self.sequences,
            "frames": self.frames,
            "frames used": "all but the first and the last annotated one of each sequence" if self.skip_ends else "all",
            "objects": len(self.objects),
            "objects used": "every id of the evaluated ground truth, from the first frame where it is seen on",
            "void": "none: 255 is an object",
            "tolerance": f"disk of {TOLERANCE} of the diagonal, rounded up",
            "notes": list(self.notes),
        }


def evaluate_vos(gt: Path, pred: Path, *, skip_ends: bool = True, split: str = "val", workers: int = 1) -> VosReport:
    """Evaluate ``pred/<sequence>/*.png`` against the folders of ``gt`` (a DAVIS root is understood too).

    ``skip_ends``: leave out the first and the last annotated frame of every sequence.

    Raises:
        InputError: missing sequences or frames, unreadable files, sizes that differ, or no object at all.
    """
    truth = find_truth(gt, split=split)
    used = slice(1, -1) if skip_ends else slice(None)
    notes = check_sequences(truth.folders, pred, used)
    jobs = [(name, frame_files(folder)[used], pred / name) for name, folder in truth.folders.items()]
    objects = [one for found in run_all(_evaluate_sequence, jobs, workers) for one in found]
    if not objects:
        raise InputError(f"{gt}: no object in the evaluated frames of any sequence")
    seen = {one.sequence for one in objects}
    without = [name for name in truth.folders if name not in seen]
    if without:
        notes.append(f"no object in the evaluated frames, not counted: {', '.join(without)}")
    frames = sum(len(files) for _, files, _ in jobs)
    return VosReport(truth.layout, len(jobs), frames, skip_ends, tuple(objects), tuple(notes))


def _evaluate_sequence(job: tuple[str, list[Path], Path]) -> list[VosObject]:
    name, truth, folder = job
    scores: dict[int, list[tuple[str, float, float]]] = defaultdict(list)
    in_truth: set[int] = set()
    for gt_file, pred_file in zip(truth, predicted_files(truth, folder) if truth else [], strict=True):
        pair = read_pair(gt_file, pred_file)
        gt_ids = _ids(pair.truth)
        in_truth |= gt_ids
        radius = contour_radius(pair.height, pair.width)
        seen = sorted(gt_ids | _ids(pair.guess) | set(scores))
        a, b = (outlines(labels, seen, radius, pair.top, pair.left) for labels in (pair.truth, pair.guess))
        for k, one, other in zip(seen, a, b, strict=True):
            scores[k].append((gt_file.stem, *compare(one, other)))
    objects = []
    for k in sorted(in_truth):
        frames, j, f = zip(*scores[k], strict=True)
        objects.append(VosObject(name, k, frames, j, f))
    return objects


def _ids(labels: LabelMap) -> set[int]:
    return set(np.nonzero(np.bincount(labels.ravel()))[0].tolist()) - {0}
