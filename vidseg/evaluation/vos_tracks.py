"""SA-V, LVOS, VOST and BURST: which objects and frames of them count, as their own evaluators have it.

* SA-V: a file per object and frame, frames at 24 per second, annotations at 6; the first and the last annotated frame
  of every object are left out; else the rule of vos-benchmark (the evaluator published with SAM 2).
* LVOS v1 and v2: an object counts on the frames that its table names, all but the first and the last of them; with
  ``unseen_videos.txt`` of the published evaluator in the root, the mean of seen and unseen videos.
* VOST: J, and J of the last quarter of the frames; objects of the first frame; 255 is left out of both masks, as in the
  paper. The published evaluator counts it as background instead: ``vost-published``.
* BURST: its own measure is HOTA. Here the tracks are compared by J&F on the annotated frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg.datasets.burst import BurstVideo, read_burst
from vidseg.datasets.label_folders import frame_files, predicted_files
from vidseg.datasets.video_sets import VideoSet
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.label_maps import read_label_map
from vidseg.evaluation.parallel import run_all
from vidseg.evaluation.tracks import MaskRef, Track, TrackScores, score_track
from vidseg.files import data_folders

VOID = 255
_SEEN = "from the first frame where ground truth or prediction has them"


@dataclass(frozen=True, slots=True)
class TrackRule:
    """How objects are compared one by one; ``words`` for the protocol. ``void``: whether 255 is left out."""

    words: Mapping[str, str]
    void: bool = False


@dataclass(frozen=True, slots=True)
class ScoredTracks:
    """Every track with its scores, and what is worth a note."""

    tracks: tuple[tuple[Track, TrackScores], ...]
    notes: tuple[str, ...]


def track_rule(found: VideoSet, protocol: str) -> TrackRule | None:
    """The rule for a data set; None: that of vos-benchmark for label maps.

    Raises:
        UsageError: ``protocol`` is not one for this data set.
    """
    if protocol == "vost-published" and found.kind != "VOST":
        raise UsageError(f"--protocol vost-published: {found.root} is not VOST ({found.layout})")
    if found.kind == "folders" or (protocol == "vos-benchmark" and found.kind in ("LVOS", "VOST")):
        return None
    return _RULES[protocol if protocol == "vost-published" else found.kind]


_RULES = {
    "SA-V": TrackRule(
        {
            "metric": "SA-V J&F (0..100), as by the evaluator published with SAM 2; means over objects",
            "frames used": "all but the first and the last annotated one of each object",
            "objects used": f"every folder of an object, {_SEEN}",
            "void": "none",
        }
    ),
    "LVOS": TrackRule(
        {
            "metric": "LVOS J&F (0..100); means over objects, or of seen and unseen videos where a list names those",
            "frames used": "all but the first and the last of each object's range in the table",
            "objects used": "those of the table",
            "void": "none",
        }
    ),
    "VOST": TrackRule(
        {
            "metric": "VOST J and J of the last quarter (0..100); means over objects",
            "frames used": "all but the first and the last annotated one of each sequence",
            "objects used": "ids 1..N, N = largest id of the first frame",
            "void": "255 in the ground truth is left out of both",
        },
        void=True,
    ),
    "vost-published": TrackRule(
        {
            "metric": "VOST J and J of the last quarter (0..100), by the published evaluator; means over objects",
            "frames used": "all but the first and the last annotated one of each sequence",
            "objects used": "ids 1..N, N = largest id of the first frame",
            "void": "255 in the ground truth is background",
        }
    ),
    "BURST": TrackRule(
        {
            "metric": "J&F (0..100) of the tracks of BURST, whose own measure is HOTA; means over tracks",
            "frames used": "all but the first and the last annotated one of each video",
            "objects used": f"every track, {_SEEN}",
            "void": "none",
        }
    ),
}


def evaluate_tracks(
    found: VideoSet,
    rule: TrackRule,
    pred: Path,
    *,
    skip_ends: bool = True,
    workers: int = 1,
    only: Collection[str] | None = None,
) -> ScoredTracks:
    """Compare every object of ``found`` with its prediction; of the videos ``only``, if it is given.

    Raises:
        InputError: predictions are missing, before anything is computed, or files cannot be read.
    """
    if not pred.exists():
        raise InputError(f"{pred}: no such folder of predictions")
    used = slice(1, -1) if skip_ends else slice(None)
    if found.table is not None:
        videos = {video.name: video for video in read_burst(found.table) if only is None or video.name in only}
        tracks = tuple(_burst(videos, pred, used))
    else:
        folders = {name: folder for name, folder in found.videos.items() if only is None or name in only}
        find = {"SA-V": _sav, "LVOS": _lvos, "VOST": _vost}[found.kind]
        tracks = tuple(find(replace(found, videos=folders), rule, pred, used))
    scores = tuple(run_all(score_track, tracks, workers))
    without = [f"{track.video}/{track.id}" for track, one in zip(tracks, scores, strict=True) if not one.frames]
    notes = []
    if without:
        more = ", ..." if len(without) > 3 else ""
        notes.append(f"{len(without)} objects are not in the evaluated frames: {', '.join(without[:3])}{more}")
    return ScoredTracks(tuple(zip(tracks, scores, strict=True)), tuple(notes))


def _need_folder(pred: Path, name: str, others: Mapping[str, object]) -> Path:
    if not (pred / name).is_dir():
        missing = [other for other in others if not (pred / other).is_dir()]
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"{pred}: {len(missing)} of {len(others)} videos have no folder of predictions: {shown}")
    return pred / name


def _sav(found: VideoSet, rule: TrackRule, pred: Path, used: slice) -> Iterator[Track]:
    for name, folder in found.videos.items():
        guesses = _need_folder(pred, name, found.videos)
        for one in data_folders(folder):
            truth = frame_files(one)[used]
            if truth and not (guesses / one.name).is_dir():
                raise InputError(
                    f"{guesses}: no folder {one.name}: SA-V needs VIDEO/OBJECT/*.png, as its objects may overlap"
                )
            files = predicted_files(truth, guesses / one.name) if truth else []
            pairs = zip(truth, files, strict=True)
            yield Track(name, one.name, tuple((a.stem, MaskRef(a), MaskRef(b)) for a, b in pairs), True)


def _lvos(found: VideoSet, rule: TrackRule, pred: Path, used: slice) -> Iterator[Track]:
    for name, folder in found.videos.items():
        guesses = _need_folder(pred, name, found.videos)
        files = {int(path.stem): path for path in frame_files(folder) if path.stem.isdecimal()}
        for object_id, span in found.ranges[name].items():
            numbers = [n for n in sorted(files) if span.start <= n <= span.end][: span.count]
            truth = [files[n] for n in numbers[used]]
            pairs = zip(truth, predicted_files(truth, guesses), strict=True)
            frames = tuple((a.stem, MaskRef(a, object_id), MaskRef(b, object_id)) for a, b in pairs)
            yield Track(name, object_id, frames, False)


def _vost(found: VideoSet, rule: TrackRule, pred: Path, used: slice) -> Iterator[Track]:
    for name, folder in found.videos.items():
        files = frame_files(folder)
        first = read_label_map(files[0])
        truth = files[used]
        guesses = predicted_files(truth, _need_folder(pred, name, found.videos))
        for k in range(1, int(first[first != VOID].max(initial=0)) + 1):
            pairs = zip(truth, guesses, strict=True)
            frames = tuple((a.stem, MaskRef(a, k), MaskRef(b, k)) for a, b in pairs)
            yield Track(name, k, frames, False, VOID if rule.void else None)


def _burst(videos: Mapping[str, BurstVideo], pred: Path, used: slice) -> Iterator[Track]:
    results = {video.name: video.tracks for video in read_burst(pred)} if pred.is_file() else None
    for name, video in videos.items():
        names = video.frames[used]
        files: list[Path] | None = None
        if results is None:
            folder = _need_folder(pred, name, videos)
            files = predicted_files([Path(f"{frame}.png") for frame in names], folder)
        elif name not in results:
            raise InputError(f"{pred}: no predictions of video {name}")
        for track, truth in video.tracks.items():
            found_masks = results[name].get(track, {}) if results is not None else {}
            guesses = (
                [MaskRef(rle=found_masks.get(frame)) for frame in names]
                if files is None
                else [MaskRef(file, track) for file in files]
            )
            triples = zip(names, (MaskRef(rle=truth.get(frame)) for frame in names), guesses, strict=True)
            yield Track(name, track, tuple(triples), True)
