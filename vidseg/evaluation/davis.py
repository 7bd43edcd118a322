"""DAVIS 2017: J, F and J&F of the semi-supervised and the unsupervised task, per frame, object and data set.

The numbers are those of the official evaluation (Pont-Tuset et al., "The 2017 DAVIS Challenge", section 4, and "The
2019 DAVIS Challenge" for the unsupervised task), except that decay stays finite on long sequences.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from vidseg.datasets.label_folders import find_truth, frame_files, frame_folder, predicted_files
from vidseg.errors import InputError
from vidseg.evaluation.contours import TOLERANCE, Outline, compare, contour_radius, outlines
from vidseg.evaluation.label_maps import FramePair, LabelMap, read_label_map, read_pair
from vidseg.evaluation.parallel import run_all
from vidseg.files import data_files, data_folders
from vidseg.types import ShapeRepr

Task = Literal["semi-supervised", "unsupervised"]
Scores = npt.NDArray[np.float64]
VOID = 255
MAX_PROPOSALS = 20


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean, recall (share of frames above 0.5) and decay (first minus last quarter) of one measure over the frames."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True, slots=True, repr=False)
class SequenceScores(ShapeRepr):
    """The scores of one sequence.

    ``frames``: the names of the T evaluated frames. ``objects``: the N ids of the ground truth. ``proposals``: the
    predicted id each object was compared with, 0 = none was left for it. ``j``, ``f``: float64 (N, T) in 0..1.
    """

    name: str
    frames: tuple[str, ...]
    objects: tuple[int, ...]
    proposals: tuple[int, ...]
    j: Scores
    f: Scores


def statistics(values: Scores) -> Statistics:
    """Mean, recall and decay of the values (T,) of one object, T >= 1.

    The quarters of the decay share their border frames: their edges are the rounded points of 1..T cut in four, both
    ends included.
    """
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return Statistics(float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean()))


def evaluate_sequence(gt_dir: Path, pred_dir: Path, task: Task = "semi-supervised", name: str = "") -> SequenceScores:
    """J and F of one sequence: two folders of PNG label maps with the same file names.

    Semi-supervised: objects 1..N with N the largest id of the first frame, the first and the last frame dropped, 255 in
    the ground truth is background. Unsupervised: all frames, 255 is void (left out of both masks), up to 20 proposals,
    assigned to the objects by the best sum of (J+F)/2 over the frames. Where N is larger than 255, 255 is an object.

    Raises:
        InputError: unreadable or missing frames, sizes that differ, predicted ids beyond the allowed ones, or
            nothing to evaluate.
    """
    unsupervised = task == "unsupervised"
    name = name or gt_dir.name
    truth = frame_files(gt_dir)
    first = read_label_map(truth[0])
    count = int(first[first != VOID].max(initial=0))
    frames = truth if unsupervised else truth[1:-1]
    if not frames:
        raise InputError(
            f"{gt_dir}: {len(truth)} frames, and none is left to evaluate once the first and the last are dropped"
        )
    files = predicted_files(frames, pred_dir)
    rows = max(MAX_PROPOSALS, count) if unsupervised else 1
    scores = np.zeros((2, rows, count, len(frames)))
    used = 0
    for t, (gt_file, pred_file) in enumerate(zip(frames, files, strict=True)):
        pair = read_pair(gt_file, pred_file)
        largest = int(pair.guess.max(initial=0))
        if largest > (MAX_PROPOSALS if unsupervised else count):
            allowed = f"at most {MAX_PROPOSALS} proposals" if unsupervised else f"the first frame has ids up to {count}"
            raise InputError(f"{pred_file}: object id {largest}: {allowed}, 0 is background")
        used = max(used, largest)
        if unsupervised and count < VOID:
            pair = replace(pair, guess=np.where(pair.truth == VOID, np.uint8(0), pair.guess))
        if unsupervised:
            scores[..., t] = _all_pairs(pair, rows, count)
        else:
            scores[:, 0, :, t] = _same_ids(pair, count)
    names, objects = tuple(path.stem for path in frames), tuple(range(1, count + 1))
    if not unsupervised:
        return SequenceScores(name, names, objects, objects, scores[0, 0], scores[1, 0])
    from scipy.optimize import linear_sum_assignment  # slow to import, and only needed here

    j, f = np.ascontiguousarray(scores[:, : max(used, count)])
    proposals, matched = linear_sum_assignment(-(j.mean(axis=2) + f.mean(axis=2)) / 2)
    of_object = np.zeros(count, int)
    of_object[matched] = proposals
    given = tuple(int(row) + 1 if row < used else 0 for row in of_object)
    columns = np.arange(count)
    return SequenceScores(name, names, objects, given, j[of_object, columns], f[of_object, columns])


def _same_ids(pair: FramePair, count: int) -> Scores:
    """(2, count): J and F of the objects 1..count."""
    scores = [
        compare(a, b)
        for a, b in zip(_outlines(pair, pair.truth, count), _outlines(pair, pair.guess, count), strict=True)
    ]
    return np.array(scores).reshape(count, 2).T


def _all_pairs(pair: FramePair, proposals: int, count: int) -> Scores:
    """(2, proposals, count): J and F of every proposal with every object."""
    objects = _outlines(pair, pair.truth, count)
    scores = [[compare(a, b) for a in objects] for b in _outlines(pair, pair.guess, proposals)]
    return np.array(scores).reshape(proposals, count, 2).transpose(2, 0, 1)


def _outlines(pair: FramePair, labels: LabelMap, count: int) -> list[Outline]:
    """Outlines of the objects 1..count of one of the two maps."""
    radius = contour_radius(pair.height, pair.width)
    return outlines(labels, range(1, count + 1), radius, pair.top, pair.left)


@dataclass(frozen=True, slots=True)
class DavisReport:
    """The scores of a data set and where they come from."""

    task: Task
    layout: str
    sequences: tuple[SequenceScores, ...]
    notes: tuple[str, ...]

    def objects(self) -> list[tuple[SequenceScores, int, Statistics, Statistics]]:
        """Every object: its sequence, its row there, its statistics of J and of F."""
        return [(s, k, statistics(s.j[k]), statistics(s.f[k])) for s in self.sequences for k in range(len(s.objects))]

    def summary(self) -> dict[str, float]:
        """The seven numbers of the official table, in 0..1: unweighted means over objects."""
        j, f = zip(*((j, f) for _, _, j, f in self.objects()), strict=True)
        j_mean, j_recall, j_decay = np.mean([(s.mean, s.recall, s.decay) for s in j], axis=0).tolist()
        f_mean, f_recall, f_decay = np.mean([(s.mean, s.recall, s.decay) for s in f], axis=0).tolist()
        return {
            "J&F-Mean": (j_mean + f_mean) / 2,
            "J-Mean": j_mean,
            "J-Recall": j_recall,
            "J-Decay": j_decay,
            "F-Mean": f_mean,
            "F-Recall": f_recall,
            "F-Decay": f_decay,
        }

    def protocol(self) -> dict[str, object]:
        """What was evaluated, and how."""
        semi = self.task == "semi-supervised"
        return {
            "metric": f"DAVIS 2017 {self.task}: J, F, J&F; means over objects",
            "ground truth": self.layout,
            "sequences": len(self.sequences),
            "frames": sum(len(s.frames) for s in self.sequences),
            "frames used": "all but the first and the last of each sequence" if semi else "all",
            "objects": sum(len(s.objects) for s in self.sequences),
            "objects used": "ids 1..N, N = largest id of the first frame",
            "void": "255 in the ground truth is background" if semi else "255 in the ground truth is left out of both",
            "matching": "by id" if semi else f"best assignment of at most {MAX_PROPOSALS} proposals by (J+F)/2",
            "tolerance": f"disk of {TOLERANCE} of the diagonal, rounded up",
            "notes": list(self.notes),
        }


def evaluate_davis(
    gt: Path,
    pred: Path,
    task: Task = "semi-supervised",
    split: str = "val",
    workers: int = 1,
    only: Collection[str] | None = None,
) -> DavisReport:
    """Evaluate the predictions ``pred/<sequence>/*.png`` against ``gt``: a DAVIS root or plain folders of sequences.

    ``only``: names of the sequences to evaluate; None: all of the split.

    Raises:
        InputError: see :func:`evaluate_sequence`; also missing sequences, or no object in the whole set.
    """
    unsupervised = task == "unsupervised"
    year = "2019" if unsupervised and split in ("test-dev", "test-challenge") else "2017"
    truth = find_truth(gt, "Annotations_unsupervised" if unsupervised else "Annotations", split, year)
    folders = {name: folder for name, folder in truth.folders.items() if only is None or name in only}
    notes = check_sequences(folders, pred, slice(None) if unsupervised else slice(1, -1))
    jobs = [(name, folder, pred / name) for name, folder in folders.items()]
    sequences = tuple(run_all(partial(_evaluate_job, task), jobs, workers))
    if not any(s.objects for s in sequences):
        raise InputError(f"{gt}: no object in the first frame of any sequence (ids 1..254; 255 is void)")
    without = [s.name for s in sequences if not s.objects]
    if without:
        notes.append(f"no object in the first frame, not counted: {', '.join(without)}")
    return DavisReport(task, truth.layout, sequences, tuple(notes))


def _evaluate_job(task: Task, job: tuple[str, Path, Path]) -> SequenceScores:
    name, gt_dir, pred_dir = job
    return evaluate_sequence(gt_dir, pred_dir, task, name)


def check_sequences(folders: dict[str, Path], pred: Path, used: slice) -> list[str]:
    """Look for every predicted frame before anything is computed; returns notes about files that are not used.

    ``used``: which of the sorted ground-truth frames of a sequence are evaluated.

    Raises:
        InputError: a folder, a sequence or a frame is missing.
    """
    if not pred.is_dir():
        raise InputError(f"{pred}: no such folder of predictions")
    missing = [name for name in folders if not (pred / name).is_dir()]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"{pred}: {len(missing)} of {len(folders)} sequences have no folder of predictions: {shown}")
    extra_frames = 0
    for name, folder in folders.items():
        files = frame_files(folder)
        predicted_files(files[used], pred / name)
        known = {path.stem for path in files}
        extra_frames += sum(path.stem not in known for path in data_files(frame_folder(pred / name), (".png",)))
    extra = [path.name for path in data_folders(pred) if path.name not in folders]
    notes = []
    if extra:
        notes.append(f"{len(extra)} predicted sequences without ground truth were ignored: {', '.join(extra[:3])}")
    if extra_frames:
        notes.append(f"{extra_frames} predicted frames without ground truth were ignored")
    return notes
