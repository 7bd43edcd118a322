"""The settings of one benchmark run: the same dataclass is the API, a row of a table, and the flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vidseg.config import NOT_RESULT, Device, Dtype, Offline, RunConfig, key_values, result_settings
from vidseg.errors import InputError, UsageError, did_you_mean

PromptKind = Literal["auto", "gt-boxes", "noisy-boxes", "points", "coarse-masks", "boxes-file", "tracker", "masks-from"]
MASKS = ("sam", "hq", "sum")
PAPER_TRIALS = 3
"""Draws that are averaged where prompts are random (HQ-SAM, supplement, section 7)."""
_MASK2FORMER = {"mode": "offline", "min_score": 0.0, "classes": "numbers"}
"""With these settings the tracker reports all that the published evaluation of Mask2Former-VIS counts."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Settings of a benchmark. Empty strings mean the benchmark's default."""

    benchmark: Annotated[str, tyro.conf.Positional] = ""
    """davis2017, sav-val, sav-test, mose, lvos-v1, lvos-v2, vost, burst, ytvis2019, hq-ytvis, coco, uvo, lvis, sginw,
    hq44k-val or big; or table-1 to table-16, figure-1 to figure-14 of the HQ-SAM paper."""
    data: Path | None = field(default=None, metadata=NOT_RESULT)
    """Folder that holds the data sets in their official layouts (see docs/evaluation.md)."""
    model: str = ""
    """SAM or HQ-SAM weights: a name from `vidseg weights list` or a file (default: compact)."""
    masks: str = ""
    """Which masks of the network, comma-separated: sam, hq, sum (SAM and HQ logits added). Default: sam and the mask
    that the paper scores, side by side from one pass of the encoder."""
    prompt: PromptKind = "auto"
    """How the network is prompted. auto: the paper's choice."""
    boxes: Path | None = field(default=None, metadata=NOT_RESULT)
    """Boxes from a detector: COCO results with bbox, YTVIS results for videos; for sginw a folder of NAME.json."""
    coarse: Path | None = field(default=None, metadata=NOT_RESULT)
    """Folder of coarse masks NAME.png for --prompt coarse-masks (default: those of BIG, otherwise simulated)."""
    masks_from: Path | None = field(default=None, metadata=NOT_RESULT)
    """Score these masks instead of a network's: a folder of PNGs, SET/NAME.png or NAME.png (hq44k-val, big), or results
    in the data set's format (coco, lvis, uvo, ytvis2019, hq-ytvis). For masks that anything else refined."""
    cascadepsp: Path | None = field(default=None, metadata=NOT_RESULT)
    """Refine every mask of the network with CascadePSP, whose weights are in this file (pip install
    'vidseg[cascadepsp]')."""
    noise: float = 0.4
    """Scale of the box noise (0..1) for --prompt noisy-boxes; the paper uses 0.2 and 0.4."""
    points: int = 1
    """Clicks on the object for --prompt points; a single one is its innermost point, several are drawn at random."""
    negative_points: int = 0
    """Clicks on the background for --prompt points."""
    trials: int = 0
    """Draws to average for random prompts (default: 3)."""
    seed: int = 0
    """Random seed."""
    sets: str = field(default="", metadata=NOT_RESULT)
    """hq44k-val and sginw: only these data sets, comma-separated."""
    tracker: str = ""
    """Tracker for videos: xmem (default where masks are given), sam2, cutie, mask2former, ..."""
    tracker_option: tyro.conf.UseAppendAction[tuple[str, ...]] = field(default=(), metadata=NOT_RESULT)
    """KEY=VALUE - a setting of the tracker. May be repeated."""
    refine: Literal["box", "auto", "none"] = "box"
    """Where masks are given: box is HQ-SAM's protocol; none scores the tracker alone; see `vidseg run --help`."""
    annotations: Path | None = field(default=None, metadata=NOT_RESULT)
    """Annotation file to use instead of the official one."""
    images: Path | None = field(default=None, metadata=NOT_RESULT)
    """Folder of images or frames to use instead of the official one."""
    fit: Literal["auto", "squash", "pad"] = "auto"
    """How images are resized. pad: keep the aspect ratio. squash: stretch to the network's square, as the published
    evaluator of HQ-SAM does. auto: squash on hq44k-val and big for the official networks, otherwise pad."""
    limit: int = field(default=0, metadata=NOT_RESULT)
    """Only the first N images or videos of every data set (0: all)."""
    output: Path | None = field(default=None, metadata=NOT_RESULT)
    """Folder for masks and scores (default: runs/reproduce-NAME). Results already in it are reused."""
    overwrite: bool = field(default=False, metadata=NOT_RESULT)
    """Start over even if the folder was made with other settings."""
    workers: int = field(default=1, metadata=NOT_RESULT)
    """Processes that compute the scores."""
    device: Device = field(default="auto", metadata=NOT_RESULT)
    dtype: Dtype = "auto"
    offline: Offline = field(default=False, metadata=NOT_RESULT)
    tracker_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Settings of the tracker (in YAML)."""

    def check(self) -> None:
        """Refuse invalid values (UsageError), before any file is used."""
        unknown = [m for m in _names(self.masks) if m not in MASKS]
        if unknown:
            raise UsageError(f"--masks {unknown[0]}{did_you_mean(unknown[0], MASKS)}: allowed are {', '.join(MASKS)}")
        if not 0 <= self.noise <= 1:
            raise UsageError(f"--noise {self.noise:g}: expected a scale of 0 to 1")
        if not 1 <= self.points <= 100 or not 0 <= self.negative_points <= 100:
            raise UsageError(
                f"--points {self.points} --negative-points {self.negative_points}: expected 1 to 100 and 0 to 100"
            )
        for name in ("trials", "limit", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} {getattr(self, name)}: must not be negative")
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers}: expected at least 1")
        for name in ("masks", "boxes", "tracker", "cascadepsp"):
            if self.masks_from is not None and getattr(self, name):
                raise UsageError(f"--masks-from scores the masks of a folder or file: leave out --{name}")
        if (self.masks_from is None) == (self.prompt == "masks-from") and self.prompt != "auto":
            raise UsageError(f"--prompt {self.prompt}: --masks-from and --prompt masks-from go together")
        if self.prompt == "boxes-file" and self.boxes is None:
            raise UsageError("--prompt boxes-file needs --boxes FILE")
        if self.boxes is not None and self.prompt not in ("auto", "boxes-file"):
            raise UsageError(f"--boxes and --prompt {self.prompt} cannot be combined")

    @property
    def root(self) -> Path:
        """The data folder.

        Raises:
            UsageError: none was given. InputError: there is no such folder.
        """
        if self.data is None:
            raise UsageError("where is the data? --data ROOT, with the layouts of docs/evaluation.md")
        if not self.data.is_dir():
            raise InputError(f"{self.data}: no such data folder")
        return self.data

    @property
    def chosen_masks(self) -> tuple[str, ...]:
        """Names of ``masks``, in order."""
        return tuple(dict.fromkeys(_names(self.masks)))

    @property
    def scored_masks(self) -> tuple[str, ...]:
        """Names of the masks that are scored: those of ``masks_from``, or the chosen ones of the network."""
        return ("given",) if self.masks_from is not None else self.chosen_masks

    @property
    def chosen_sets(self) -> tuple[str, ...]:
        """Names of ``sets``, in order."""
        return tuple(dict.fromkeys(_names(self.sets)))

    @property
    def random(self) -> bool:
        """Whether the prompts are drawn, so that several trials make sense."""
        if self.prompt == "coarse-masks":
            return self.coarse is None and self.benchmark != "big"
        return self.prompt == "noisy-boxes" or (self.prompt == "points" and self.points + self.negative_points > 1)

    @property
    def draws(self) -> int:
        """How many times the prompts are drawn."""
        return (self.trials or PAPER_TRIALS) if self.random else 1

    def all_tracker_options(self) -> dict[str, Any]:
        """Settings of the tracker: the benchmark's, then those of YAML, then the flags."""
        defaults = _MASK2FORMER if self.tracker == "mask2former" else {}
        return defaults | self.tracker_options | key_values("--tracker-option", self.tracker_option)

    def content(self) -> dict[str, Any]:
        """The settings that decide the masks, json-ready (not: where they go, which part of the data is done)."""
        return result_settings(self) | {"tracker_options": self.all_tracker_options()}

    def run_config(self, **values: Any) -> RunConfig:
        """The same models as settings of `vidseg run`, from which models are loaded."""
        return RunConfig(
            model=self.model or "compact",
            tracker=self.tracker or "xmem",
            tracker_options=self.all_tracker_options(),
            device=self.device,
            dtype=self.dtype,
            offline=self.offline,
            **values,
        )


def _names(text: str) -> list[str]:
    return [part for part in (p.strip() for p in text.split(",")) if part]
