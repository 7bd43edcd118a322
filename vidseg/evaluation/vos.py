"""J&F of sets of videos whose objects may appear in any frame: YouTube-VOS, MOSE, SA-V, LVOS, VOST and BURST.

For label maps the numbers are those of the public ``vos-benchmark`` (scale 0..100). It differs from DAVIS in what
counts: every id of the ground truth is an object (255 too), an object counts from the first evaluated frame where the
ground truth or the prediction has it, and predicted ids that the ground truth does not have are ignored. SA-V and BURST
are evaluated by the same rule, object by object; the other two as in :mod:`vidseg.evaluation.vos_tracks`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vidseg.datasets.label_folders import frame_files, predicted_files
from vidseg.datasets.video_sets import VideoSet, find_video_set
from vidseg.errors import InputError
from vidseg.evaluation.contours import TOLERANCE, compare, contour_radius, outlines
from vidseg.evaluation.davis import check_sequences
from vidseg.evaluation.label_maps import LabelMap, read_pair
from vidseg.evaluation.parallel import run_all
from vidseg.evaluation.vos_tracks import ScoredTracks, TrackRule, evaluate_tracks, track_rule

VosProtocol = Literal["auto", "vos-benchmark", "vost-published"]


@dataclass(frozen=True, slots=True)
class VosObject:
    """One object: J and F in 0..1 for each of its ``frames`` (names)."""

    sequence: str
    id: int | str
    frames: tuple[str, ...]
    j: tuple[float, ...]
    f: tuple[float, ...]

    def means(self) -> tuple[float, float]:
        """(J, F), mean over the frames, 0..100."""
        return float(np.mean(self.j)) * 100, float(np.mean(self.f)) * 100


@dataclass(frozen=True, slots=True)
class VosReport:
    """All objects of a data set, and how they were evaluated: ``rules`` in words."""

    layout: str
    sequences: int
    frames: int
    objects: tuple[VosObject, ...]
    rules: Mapping[str, object]
    measures: Mapping[str, float]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, float]:
        """J&F, J and F in 0..100, means over objects; VOST: J, and J of the last quarter of the frames."""
        return dict(self.measures)

    def protocol(self) -> dict[str, object]:
        """What was evaluated, and how."""
        return {
            "metric": self.rules["metric"],
            "ground truth": self.layout,
            "sequences": self.sequences,
            "frames": self.frames,
            "frames used": self.rules["frames used"],
            "objects": len(self.objects),
            "objects used": self.rules["objects used"],
            "void": self.rules["void"],
            "tolerance": f"disk of {TOLERANCE} of the diagonal, rounded up",
            "notes": list(self.notes),
        }


def evaluate_vos(
    gt: Path,
    pred: Path,
    *,
    skip_ends: bool = True,
    split: str = "val",
    workers: int = 1,
    protocol: VosProtocol = "auto",
    only: Collection[str] | None = None,
) -> VosReport:
    """Evaluate ``pred`` against the data set at ``gt``, see :func:`vidseg.datasets.video_sets.find_video_set`.

    ``pred`` has ``<sequence>/*.png``; of SA-V ``<video>/<object>/*.png``; of BURST ``<dataset>/<video>/*.png``, or it
    is a result file. ``skip_ends``: leave out the first and the last annotated frame of every sequence (SA-V and LVOS:
    of every object). ``protocol``: ``auto`` is that of the data set; ``vos-benchmark`` evaluates any label maps by that
    rule; ``vost-published`` counts 255 as background, as the evaluator published with VOST does. ``only``: names of the
    sequences to evaluate; None: all.

    Raises:
        InputError: missing sequences or frames, unreadable files, sizes that differ, or no object at all.
        UsageError: an unknown split, or a protocol that is not one of this data set.
    """
    found = find_video_set(gt, split)
    rule = track_rule(found, protocol)
    if rule is not None:
        scored = evaluate_tracks(found, rule, pred, skip_ends=skip_ends, workers=workers, only=only)
        return _track_report(found, rule, scored, skip_ends)
    used = slice(1, -1) if skip_ends else slice(None)
    folders = {name: folder for name, folder in found.videos.items() if only is None or name in only}
    notes = check_sequences(folders, pred, used)
    jobs = [(name, frame_files(folder)[used], pred / name) for name, folder in folders.items()]
    objects = [one for part in run_all(_evaluate_sequence, jobs, workers) for one in part]
    if not objects:
        first_only = skip_ends and not any(files for _, files, _ in jobs)
        why = ": only first frames are public, the rest is scored by the data set's server" if first_only else ""
        raise InputError(f"{gt}: no object in the evaluated frames of any sequence{why}")
    seen = {one.sequence for one in objects}
    without = [name for name in folders if name not in seen]
    if without:
        notes.append(f"no object in the evaluated frames, not counted: {', '.join(without)}")
    frames = sum(len(files) for _, files, _ in jobs)
    rules = {
        "metric": "vos-benchmark J&F (0..100); means over objects",
        "frames used": "all but the first and the last annotated one of each sequence" if skip_ends else "all",
        "objects used": "every id of the evaluated ground truth, from the first frame where it is seen on",
        "void": "none: 255 is an object",
    }
    return VosReport(found.layout, len(jobs), frames, tuple(objects), rules, _means(objects), tuple(notes))


def _track_report(found: VideoSet, rule: TrackRule, scored: ScoredTracks, skip_ends: bool) -> VosReport:
    objects = tuple(
        VosObject(track.video, track.id, scores.frames, scores.j, scores.f)
        for track, scores in scored.tracks
        if scores.frames
    )
    if not objects:
        raise InputError(f"{found.root}: no object in the evaluated frames of any sequence")
    rules = {**rule.words, "frames used": rule.words["frames used"] if skip_ends else "all annotated ones"}
    measures = _vost_measures(objects) if found.kind == "VOST" else _means(objects, found.unseen)
    videos = {track.video for track, _ in scored.tracks}
    frames = {(track.video, frame) for track, _ in scored.tracks for frame, _, _ in track.frames}
    return VosReport(found.layout, len(videos), len(frames), objects, rules, measures, scored.notes)


def _means(objects: Sequence[VosObject], unseen: frozenset[str] = frozenset()) -> dict[str, float]:
    """Means over objects; with videos of ``unseen`` classes, the mean of those of seen and unseen ones."""
    groups = [[one.means() for one in objects if (one.sequence in unseen) == new] for new in (False, True)]
    if not all(groups):
        j, f = np.mean([one.means() for one in objects], axis=0).tolist()
        return {"J&F": (j + f) / 2, "J": j, "F": f}
    (js, fs), (ju, fu) = (np.mean(group, axis=0).tolist() for group in groups)
    j, f = (js + ju) / 2, (fs + fu) / 2
    each = {"J_seen": js, "F_seen": fs, "J_unseen": ju, "F_unseen": fu}
    return {"J&F": (j + f) / 2, "J": j, "F": f, **each}


def _vost_measures(objects: Sequence[VosObject]) -> dict[str, float]:
    """J over all evaluated frames and over the last quarter of each object's."""
    last = [np.mean(one.j[int(0.75 * len(one.j)) :]) for one in objects]
    return {"J": float(np.mean([one.means()[0] for one in objects])), "J_last": float(np.mean(last)) * 100}


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
