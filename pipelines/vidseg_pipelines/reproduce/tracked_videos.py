"""Benchmarks of tracking: whole runs of `vidseg run` from given masks, whose label maps are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from vidseg.config import RunConfig
from vidseg.errors import InputError
from vidseg.outputs import read_journal
from vidseg.outputs.davis import DavisSink
from vidseg.outputs.layout import JOURNAL
from vidseg.sam.config import Output
from vidseg.sam.model import SegmentAnything
from vidseg.types import Prompt
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.store import Record, ReproduceRecords
from vidseg_pipelines.reproduce.task import Outcome, TaskModels
from vidseg_pipelines.run import Loaders, run_video

ALONE = "tracker"
"""Name of the masks when the tracker alone draws them (``--refine none``)."""


class TrackedVideos(ABC):
    """Videos with the masks that their objects start from. A video that was interrupted goes on at its last snapshot.

    A video is one run with all its objects; where objects may overlap, several runs, by the name of their folder.
    """

    unit = "videos"
    hq_output = ""
    squashes = False

    def __init__(self, config: ReproduceConfig, keys: Sequence[str]) -> None:
        self.config = config
        self.keys: Sequence[str] = keys[: config.limit or None]
        self.sources: Sequence[Path] = ()

    @abstractmethod
    def frames(self, key: str) -> Path:
        """The folder of the video's frames."""

    @abstractmethod
    def size(self, key: str) -> tuple[int, int]:
        """Width and height of the frames."""

    @abstractmethod
    def prompts(self, key: str) -> Mapping[str, Sequence[Prompt]]:
        """The given masks of every run of the video, by the folder of its label maps."""

    @abstractmethod
    def score(self, store: ReproduceRecords) -> Outcome:
        """The scores of all :attr:`keys`."""

    def saved(self, key: str) -> Collection[str] | None:
        """The frames whose label maps are kept, by name without suffix; None: all."""
        return None

    def check(self, folder: Path) -> None:
        """All was checked at the start."""
        del folder

    def predict(self, key: str, models: TaskModels, folder: Path) -> Record:
        """Run the video once per kind of mask; label maps go to ``folder``/predictions/MASKS/VIDEO."""
        alone = self.config.refine == "none"
        outputs: tuple[Output | None, ...] = (None,) if alone else models.predictor.outputs
        count = 0
        for output in outputs:
            for name, prompts in self.prompts(key).items():
                count = self._run(key, name, prompts, models, output, folder)
        return {"masks": {output or ALONE: [count] for output in outputs}}

    def _run(
        self, key: str, name: str, prompts: Sequence[Prompt], models: TaskModels, output: Output | None, folder: Path
    ) -> int:
        masks_name = output or ALONE
        run = folder / "runs" / masks_name / name
        config = self.config.run_config(
            input=str(self.frames(key)), output=run, save="none", refine=self.config.refine, resume=run.exists()
        )
        sam = models.loaders.sam(config) if output is None else models.predictor.sam.with_output(output)
        loaders = Loaders(partial(_given, sam), lambda _: models.tracker)
        summary = run_video(config, prompts=prompts, loaders=loaders)
        if summary.status == "partial":
            raise InputError(f"{key}: {summary.warnings[0]}")
        width, height = self.size(key)
        sink, keep = DavisSink(folder / "predictions" / masks_name / name), self.saved(key)
        for masks in read_journal(run / JOURNAL):
            if keep is None or masks.stem in keep:
                sink.write_masks(masks.with_hw((height, width)))
        return summary.frames

    def kinds(self, store: ReproduceRecords) -> list[str]:
        """The kinds of masks in the records."""
        _, record = next(store.read(self.keys[:1]))
        return list(record["masks"])

    def describe(self, given: str) -> str:
        """The prompt in words, for the protocol."""
        return f"tracker {self.config.tracker} from {given}, --refine {self.config.refine}"


def _given(sam: SegmentAnything, config: RunConfig) -> SegmentAnything:
    return sam
