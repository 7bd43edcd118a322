"""What every benchmark can do: name its images or videos, make the masks of one, and score them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vidseg.types import Rle, Tracker
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.mask_predictor import MaskPredictor, make_predictor
from vidseg_pipelines.reproduce.post_refinement import load_cascadepsp
from vidseg_pipelines.reproduce.store import Record, ReproduceRecords
from vidseg_pipelines.run import Loaders

Scores = dict[str, Any]
"""Metric to number (0..1 or a count), or name of a set to such a mapping."""


@dataclass(frozen=True)
class Outcome:
    """Scores by name of the mask, what was evaluated and how, and what is lacking for the official number."""

    scores: Mapping[str, Scores]
    protocol: Mapping[str, object]
    lacking: tuple[str, ...] = ()


class Task(Protocol):
    """A benchmark whose data was found and checked."""

    keys: Sequence[str]
    """The images or videos to do, in order."""
    sources: Sequence[Path]
    """Files that the prompts and the ground truth come from."""
    unit: str
    hq_output: str
    """The HQ mask that the paper scores: "hq", or "" for what the network was made for."""
    squashes: bool
    """Whether the published evaluator stretches images to a square."""

    def check(self, folder: Path) -> None:
        """Look for what is wrong with the ground truth, before anything is computed; ``folder`` may get files."""
        ...

    def predict(self, key: str, models: TaskModels, folder: Path) -> Record:
        """The masks of one image or video, json-ready; larger files go below ``folder``."""
        ...

    def score(self, store: ReproduceRecords) -> Outcome:
        """The scores of all :attr:`keys`, which are done."""
        ...


class TaskModels:
    """The networks of a run, loaded when they are first needed."""

    def __init__(self, config: ReproduceConfig, loaders: Loaders, task: Task) -> None:
        self.config, self.loaders, self._task = config, loaders, task
        self._predictor: MaskPredictor | None = None
        self._tracker: Tracker | None = None

    def load(self) -> None:
        """Load them now: missing weights are found, or fetched, before anything is computed."""
        self._predictor = self._predictor or self._load_predictor()
        if self.config.prompt == "tracker":
            self._tracker = self._tracker or self._load_tracker()

    @property
    def predictor(self) -> MaskPredictor:
        """SAM, and which masks of it are expected."""
        self._predictor = self._predictor or self._load_predictor()
        return self._predictor

    @property
    def tracker(self) -> Tracker:
        """The tracker."""
        self._tracker = self._tracker or self._load_tracker()
        return self._tracker

    def _load_predictor(self) -> MaskPredictor:
        sam = self.loaders.sam(self.config.run_config())
        predictor = make_predictor(self.config, sam, self._task.hq_output, self._task.squashes)
        if self.config.cascadepsp is None:
            return predictor
        return replace(predictor, post=load_cascadepsp(self.config.cascadepsp, sam.device))

    def _load_tracker(self) -> Tracker:
        return self.loaders.tracker(self.config.run_config())


def pack(rle: Rle) -> str:
    """Run-lengths as text, without the size."""
    return rle.counts.decode("ascii")


def unpack(counts: str, size: Sequence[int]) -> Rle:
    """What :func:`pack` has packed."""
    return Rle(int(size[0]), int(size[1]), counts.encode("ascii"))


def variants(store: ReproduceRecords, keys: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The names of the masks in the journal, and the number of trials."""
    _, record = next(store.read(keys[:1]))
    masks: Mapping[str, Sequence[object]] = record["masks"]
    return tuple(masks), len(next(iter(masks.values())))


def mean_of(trials: Sequence[Scores]) -> Scores:
    """Mean over trials, number by number; None where a trial has no number."""
    first = trials[0]
    if len(trials) == 1:
        return first
    means: Scores = {}
    for name, value in first.items():
        values = [trial[name] for trial in trials]
        if isinstance(value, Mapping):
            means[name] = mean_of(values)
        elif None in values:
            means[name] = None
        elif isinstance(value, int):  # a count, the same in all trials
            means[name] = value
        else:
            means[name] = float(np.mean(values))
    return means


def describe_prompt(config: ReproduceConfig) -> str:
    """The prompt in words, for the protocol."""
    trials = f"; mean of {config.draws} draws, seed {config.seed}" if config.random else ""
    points = (
        "the innermost point of the ground truth"
        if config.points == 1
        else f"{config.points} random points of the ground truth"
    )
    off = f" and {config.negative_points} of the background" if config.negative_points else ""
    coarse = "the ground truth with noise along its outline" if config.random else config.coarse or "of the data set"
    return {
        "gt-boxes": "box of the ground truth, first and last pixel",
        "noisy-boxes": f"box of the ground truth with DN-DETR noise of scale {config.noise:g}",
        "points": points + off,
        "coarse-masks": f"coarse mask: {coarse}",
        "boxes-file": f"boxes of a detector: {config.boxes}",
        "tracker": f"boxes of the tracker {config.tracker}",
        "masks-from": f"none: the masks are those of {config.masks_from}",
    }[config.prompt] + trials
