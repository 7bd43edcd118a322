"""Objects with classes and scores, on images (COCO, LVIS, UVO, SGinW) and in videos (YouTube-VIS, HQ-YTVIS).

An image is a video of one frame here. Every object of a detector, a tracker or the ground truth gives a prompt on each
frame it is on, keeps its class and score, and gets one mask per frame; masks may overlap, as in the published results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidseg.atomic_files import atomic_file
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.checks import Row, read_mask, size_of
from vidseg.masks.files import FOREGROUND
from vidseg.masks.rle import decode
from vidseg.types import Frame, Tracks, VideoInfo
from vidseg.video.images import image_size, read_image
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.groups import AnnotationSet, check_files, check_truth, first_of_each, read_detections
from vidseg_pipelines.reproduce.mask_predictor import MaskPredictor
from vidseg_pipelines.reproduce.object_prompts import ObjectPrompt, object_rng, simulate_prompt
from vidseg_pipelines.reproduce.objects import (
    DetectedObject,
    masks_from_row,
    object_from_row,
    objects_from_tracks,
)
from vidseg_pipelines.reproduce.store import Record, ReproduceRecords
from vidseg_pipelines.reproduce.task import (
    Outcome,
    Scores,
    TaskModels,
    describe_prompt,
    mean_of,
    pack,
    unpack,
    variants,
)

Evaluated = tuple[Scores, Mapping[str, object]]
Size = tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """What tells these benchmarks apart. ``files_of``: the file names of an image or video, in order.

    ``evaluate(truth, results, workers)`` gives scores and protocol. At most ``limit`` objects of an image or video are
    kept, of every class if ``per_category``; ``any_category``: the detector's classes are not those of the data.
    """

    name: str
    video: bool
    files_of: Callable[[Row], Sequence[str]]
    evaluate: Callable[[Path, Path, int], Evaluated]
    limit: int = 100
    per_category: bool = True
    any_category: bool = False

    @property
    def table(self) -> str:
        """The list of the annotation file that names images or videos."""
        return "videos" if self.video else "images"

    @property
    def key(self) -> str:
        """How annotations and results name them."""
        return "video_id" if self.video else "image_id"


@dataclass(frozen=True)
class _Place:
    """An image or video: its group, id, frames, size (height, width), and the objects that are known beforehand."""

    group: AnnotationSet
    id: int
    files: tuple[Path, ...]
    size: Size
    objects: Sequence[DetectedObject]


class Detections:
    """One or several annotation files with their images or videos."""

    hq_output = ""
    squashes = False

    def __init__(
        self, config: ReproduceConfig, kind: Kind, groups: Sequence[AnnotationSet], boxes: Mapping[str, Path]
    ) -> None:
        """``boxes``: the results of a detector by name of the group, empty for other prompts.

        Raises:
            InputError: missing files, other sizes than the annotations say, malformed boxes or ground truth.
        """
        self.config, self.kind, self.groups = config, kind, groups
        self.unit = kind.table
        self.sources: Sequence[Path] = [*(g.file for g in groups), *boxes.values()]
        self._places: dict[str, _Place] = {}
        for group in groups:
            if boxes:
                found = read_detections(boxes[group.name], group, kind.key, any_category=kind.any_category)
            for place, row in group.rows.items():
                name = f"{group.name}/{place}" if group.name else str(place)
                files, size = self._files(group, row)
                told: Sequence[DetectedObject] = ()
                if boxes:
                    where = f"{boxes[group.name]}: a result of {kind.key} {place}"
                    kept = first_of_each(found.get(place, ()), kind.limit, per_category=kind.per_category)
                    if config.masks_from is not None:
                        told = [masks_from_row(one, size, len(files), where) for one in kept]
                    else:
                        told = [object_from_row(one, len(files), where) for one in kept]
                elif config.prompt != "tracker":
                    told = [DetectedObject(one["category_id"], 1.0, truth=one) for one in group.by_row.get(place, ())]
                self._places[name] = _Place(group, place, files, size, told)
        self.keys: Sequence[str] = list(self._places)

    def _files(self, group: AnnotationSet, row: Row) -> tuple[tuple[Path, ...], Size]:
        size = size_of(row, f"{group.file}: {self.kind.table} {row['id']}")
        files = check_files((group.folder / name for name in self.kind.files_of(row)), group)
        for file in files:
            width, height = image_size(file)
            if (height, width) != size:
                raise InputError(f"{file}: {width}x{height} pixels, but {group.file.name} says {size[1]}x{size[0]}")
        return tuple(files), size

    def check(self, folder: Path) -> None:
        """Let the evaluator look at the ground truth; ``folder`` gets the part of it that is done, if it is a part.

        Raises:
            InputError: whatever it finds.
        """
        for group in self.groups:
            if group.scored:
                check_truth(self._truth(group, folder), lambda truth, pred: self.kind.evaluate(truth, pred, 1))

    def predict(self, key: str, models: TaskModels, folder: Path) -> Record:
        """Masks [output][trial][object][frame] with class and score of every object."""
        place = self._places[key]
        if self.config.masks_from is not None:
            given = [[None if rle is None else pack(rle) for rle in one.masks] for one in place.objects]
            about = [{"category_id": one.category, "score": one.score} for one in place.objects]
            return {"size": place.size, "fit": "masks as given", "objects": about, "masks": {"given": [given]}}
        predictor = models.predictor
        objects = self._track(place, models) if self.config.prompt == "tracker" else place.objects
        trials = range(self.config.draws)
        masks: dict[str, list[list[list[str | None]]]]
        masks = {output: [[[] for _ in objects] for _ in trials] for output in predictor.outputs}
        for t, file in enumerate(place.files):
            asked = [
                [self._ask(key, place, one, (trial, n, t), predictor) for n, one in enumerate(objects)]
                for trial in trials
            ]
            if not any(one for row in asked for one in row):
                picture = None
            else:
                picture = predictor.encode(read_image(file))
            for trial in trials:
                painted = predictor.predict(picture, asked[trial]) if picture else {}
                for output, rows in masks.items():
                    for n, one in enumerate(asked[trial]):
                        rows[trial][n].append(None if one is None else pack(painted[output][n]))
        told = [{"category_id": one.category, "score": one.score} for one in objects]
        return {"size": place.size, "fit": predictor.fit, "objects": told, "masks": masks}

    def _ask(
        self, key: str, place: _Place, one: DetectedObject, at: tuple[int, int, int], predictor: MaskPredictor
    ) -> ObjectPrompt | None:
        """The prompt for one object at (trial, number of the object, frame); None where it is absent."""
        trial, number, t = at
        if one.truth is None:
            box = one.boxes[t]
            return None if box is None else ObjectPrompt(box=box * predictor.scale(place.size))
        value = one.truth["segmentations"][t] if self.kind.video else one.truth["segmentation"]
        if value is None:
            return None
        rle = read_mask(value, place.size, f"{place.group.file}: annotation {one.truth['id']}", polygons=True)
        mask = predictor.view(decode(rle).astype(np.uint8) * np.uint8(255)) > FOREGROUND
        draw = object_rng(self.config, trial, f"{key}:{t}", number)
        return simulate_prompt(self.config, draw, mask) if mask.any() else None

    def _track(self, place: _Place, models: TaskModels) -> list[DetectedObject]:
        """The objects that the tracker finds."""
        tracker = models.tracker
        if not tracker.finds_objects:
            raise UsageError(
                f"--tracker {self.config.tracker}: it has to be told where the objects are; {self.kind.name} wants one "
                "that finds them, such as mask2former, or --boxes FILE"
            )
        height, width = place.size
        tracker.start(VideoInfo(width, height, Fraction(6), frame_count=len(place.files), name=str(place.id)))
        tracks: list[Tracks] = []
        for t, file in enumerate(place.files):
            tracks += tracker.step(Frame(t, t, t / 6, read_image(file)))
        tracks += tracker.finish()
        return objects_from_tracks(tracks, len(place.files), place.group.categories, place.group.file.name)

    def score(self, store: ReproduceRecords) -> Outcome:
        """The evaluator's numbers for every kind of mask; the result files stay in the folder."""
        names, trials = variants(store, self.keys)
        protocol: Mapping[str, object] = {}
        scores: dict[str, Scores] = {}
        for name in names:
            per_trial: list[Scores] = []
            for trial in range(trials):
                table: Scores = {}
                for group in self.groups:
                    parts = [group.name, name, str(trial) if trials > 1 else ""]
                    path = store.folder / f"results-{'-'.join(filter(None, parts))}.json"
                    self._write(store, group, (name, trial), path)
                    if group.scored:
                        truth = self._truth(group, store.folder)
                        numbers, protocol = self.kind.evaluate(truth, path, self.config.workers)
                        table |= {group.name: numbers} if group.name else numbers
                per_trial.append(_with_mean(table) if self.groups[0].name else table)
            scores[name] = mean_of(per_trial)
        told = describe_prompt(self.config)
        if self.config.prompt not in ("boxes-file", "tracker", "masks-from"):
            told += "; every object has score 1 and its true class: an upper bound, not the protocol of the paper"
        hidden = [
            f"{g.file.name}: its ground truth is not public, submit the result files"
            for g in self.groups
            if not g.scored
        ]
        return Outcome(scores, {**protocol, "prompt": told}, tuple(hidden))

    def _truth(self, group: AnnotationSet, folder: Path) -> Path:
        target = folder / ("ground-truth" + (f"-{group.name}" if group.name else "") + ".json")
        return group.truth(self.kind.table, self.kind.key, target)

    def _write(self, store: ReproduceRecords, group: AnnotationSet, masks: tuple[str, int], path: Path) -> None:
        """The results of a group in the format of its data set, line by line."""
        keys = [key for key, place in self._places.items() if place.group is group]
        name, trial = masks
        with atomic_file(path) as file:
            separator = b"[\n"
            for key, record in store.read(keys):
                for told, counts in zip(record["objects"], record["masks"][name][trial], strict=True):
                    rles = [None if c is None else unpack(c, record["size"]).to_coco() for c in counts]
                    entry = {self.kind.key: self._places[key].id, **told}
                    if self.kind.video:
                        entry["segmentations"] = rles
                    elif rles[0] is None:
                        continue
                    else:
                        entry["segmentation"] = rles[0]
                    file.write(separator + json.dumps(entry).encode())
                    separator = b",\n"
            file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _with_mean(table: Scores) -> Scores:
    """The sets' numbers and the mean of their AP, which is the metric of SGinW; sets without objects are left out."""
    known = [ap for numbers in table.values() if (ap := numbers["mask"]["AP"]) > -1]
    return {**table, "mean": {"AP": float(np.mean(known)) if known else -1.0}}
