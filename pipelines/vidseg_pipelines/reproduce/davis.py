"""DAVIS 2017 val, semi-supervised (table 12): whole runs of `vidseg run` from the first masks, then J&F."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vidseg.datasets import layouts
from vidseg.datasets.label_folders import find_truth, frame_files
from vidseg.errors import InputError
from vidseg.evaluation.davis import evaluate_davis
from vidseg.masks.annotation import read_annotation
from vidseg.types import Prompt
from vidseg.video.images import image_size
from vidseg.video.listing import list_images
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.store import ReproduceRecords
from vidseg_pipelines.reproduce.task import Outcome
from vidseg_pipelines.reproduce.tracked_videos import TrackedVideos

_FRAMES = "JPEGImages/480p"


class Davis(TrackedVideos):
    """Sequences of DAVIS 2017 val."""

    def __init__(self, config: ReproduceConfig, root: Path) -> None:
        """Check that every sequence has frames and annotations of one size and the same names.

        Raises:
            InputError: something is missing or does not fit.
        """
        folders = find_truth(root).folders
        super().__init__(config, list(folders))
        self._root = root
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

    def frames(self, key: str) -> Path:
        """Frames at 480p."""
        return self._root / _FRAMES / key

    def size(self, key: str) -> tuple[int, int]:
        """Of the first annotation, which was compared with the first frame."""
        return image_size(self._first[key])

    def prompts(self, key: str) -> Mapping[str, Sequence[Prompt]]:
        """The masks of the first frame."""
        found = read_annotation(self._first[key])
        return {key: [Prompt(0, object_id, mask=mask) for object_id, mask in found.items()]}

    def score(self, store: ReproduceRecords) -> Outcome:
        """The seven numbers of the official table for every kind of mask."""
        folder = store.folder / "predictions"
        workers = self.config.workers
        reports = {
            name: evaluate_davis(self._root, folder / name, workers=workers, only=self.keys)
            for name in self.kinds(store)
        }
        protocol = next(iter(reports.values())).protocol()
        given = self.describe("the masks of the first frame")
        return Outcome({name: report.summary() for name, report in reports.items()}, {**protocol, "prompt": given})


def open_davis(config: ReproduceConfig) -> Davis:
    """The DAVIS root: Annotations/480p, JPEGImages/480p and ImageSets/2017/val.txt."""
    wanted = [f"{layouts.DAVIS}/{part}" for part in ("Annotations/480p", _FRAMES, "ImageSets/2017/val.txt")]
    annotations, _, _ = layouts.need(config.root, "davis2017", wanted)
    return Davis(config, annotations.parents[1])
