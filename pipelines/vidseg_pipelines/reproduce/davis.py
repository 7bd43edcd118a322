"""DAVIS 2017 val, semi-supervised (table 12): whole runs of `vidseg run` from the first masks, then J&F."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vidseg.config import RunConfig
from vidseg.datasets import layouts
from vidseg.datasets.label_folders import find_truth, frame_files
from vidseg.errors import InputError
from vidseg.evaluation.davis import evaluate_davis
from vidseg.outputs import read_journal
from vidseg.outputs.davis import DavisSink
from vidseg.outputs.layout import JOURNAL
from vidseg.sam.config import Output
from vidseg.sam.model import SegmentAnything
from vidseg.video.images import image_size
from vidseg.video.listing import list_images
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.store import Record, ReproduceRecords
from vidseg_pipelines.reproduce.task import Outcome, TaskModels
from vidseg_pipelines.run import Loaders, run_video

_FRAMES = "JPEGImages/480p"
ALONE = "tracker"
"""Name of the masks when the tracker alone draws them (``--refine none``)."""


class Davis:
    """Sequences of DAVIS 2017 val. A sequence that was interrupted goes on at its last snapshot."""

    unit = "videos"
    hq_output = ""
    squashes = False

    def __init__(self, config: ReproduceConfig, root: Path) -> None:
        """Check that every sequence has frames and annotations of one size and the same names.

        Raises:
            InputError: something is missing or does not fit.
        """
        self.config, self.root = config, root
        folders = find_truth(root).folders
        self.keys: Sequence[str] = list(folders)[: config.limit or None]
        self.sources: Sequence[Path] = ()
        self._first: dict[str, Path] = {}
        for name in self.keys:
            frames, truth = root / _FRAMES / name, frame_files(folders[name])
            if not frames.is_dir():
                raise InputError(f"{frames}: no frames of sequence {name}")
            images = list_images(frames)
            if [path.stem for path in images] != [f"{t:05d}" for t in range(len(truth))] or len(images) != len(truth):
                raise InputError(
                    f"{frames}: {len(images)} frames, {len(truth)} annotations: expected 00000.jpg, 00001.jpg, ..., "
                    "one per annotation"
                )
            if image_size(images[0]) != image_size(truth[0]):
                raise InputError(f"{truth[0]}: another size than its frame {images[0].name}")
            self._first[name] = truth[0]

    def check(self, folder: Path) -> None:
        """All was checked at the start."""

    def predict(self, key: str, models: TaskModels, folder: Path) -> Record:
        """Run the video once per kind of mask; label maps go to ``folder``/predictions/MASKS/SEQUENCE."""
        alone = self.config.refine == "none"
        outputs: tuple[Output | None, ...] = (None,) if alone else models.predictor.outputs
        size = image_size(self._first[key])
        for output in outputs:
            name = output or ALONE
            run = folder / "runs" / name / key
            config = self.config.run_config(
                input=str(self.root / _FRAMES / key),
                output=run,
                mask=(str(self._first[key]),),
                save="none",
                refine=self.config.refine,
                resume=run.exists(),
            )
            sam = models.loaders.sam(config) if output is None else models.predictor.sam.with_output(output)
            summary = run_video(config, loaders=Loaders(partial(_given, sam), lambda _: models.tracker))
            if summary.status == "partial":
                raise InputError(f"{key}: {summary.warnings[0]}")
            sink = DavisSink(folder / "predictions" / name / key)
            for masks in read_journal(run / JOURNAL):
                sink.write_masks(masks.with_hw((size[1], size[0])))
        return {"masks": {output or ALONE: [summary.frames] for output in outputs}}

    def score(self, store: ReproduceRecords) -> Outcome:
        """The seven numbers of the official table for every kind of mask."""
        _, record = next(store.read(self.keys[:1]))
        reports = {
            name: evaluate_davis(
                self.root, store.folder / "predictions" / name, workers=self.config.workers, only=self.keys
            )
            for name in record["masks"]
        }
        protocol = next(iter(reports.values())).protocol()
        told = f"tracker {self.config.tracker} from the masks of the first frame, --refine {self.config.refine}"
        return Outcome({name: report.summary() for name, report in reports.items()}, {**protocol, "prompt": told})


def _given(sam: SegmentAnything, config: RunConfig) -> SegmentAnything:
    return sam


def open_davis(config: ReproduceConfig) -> Davis:
    """The DAVIS root: Annotations/480p, JPEGImages/480p and ImageSets/2017/val.txt."""
    wanted = [f"{layouts.DAVIS}/{part}" for part in ("Annotations/480p", _FRAMES, "ImageSets/2017/val.txt")]
    annotations, _, _ = layouts.need(config.root, "davis2017", wanted)
    return Davis(config, annotations.parents[1])
