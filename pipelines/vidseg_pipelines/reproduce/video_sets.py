"""SA-V, MOSE, LVOS, VOST and BURST: every object from its first mask, scored as `vidseg eval vos` does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidseg.datasets.video_sets import Kind, VideoSet, find_video_set
from vidseg.errors import InputError
from vidseg.evaluation.first_masks import FirstMask, GivenMasks, given_masks
from vidseg.evaluation.vos import evaluate_vos
from vidseg.types import Prompt
from vidseg.video.images import image_size
from vidseg.video.listing import list_images
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.store import ReproduceRecords
from vidseg_pipelines.reproduce.task import Outcome
from vidseg_pipelines.reproduce.tracked_videos import TrackedVideos


@dataclass(frozen=True)
class VideoSetPlace:
    """Where a data set is below the data root (or the root is it), which part of it, and the layout it must have."""

    kind: Kind
    folders: tuple[str, ...]
    split: str = "val"


VIDEO_SETS = {
    "sav-val": VideoSetPlace("SA-V", ("sav_val", "SA-V/sav_val"), "val"),
    "sav-test": VideoSetPlace("SA-V", ("sav_test", "SA-V/sav_test"), "test"),
    "mose": VideoSetPlace("folders", ("MOSE",)),
    "lvos-v1": VideoSetPlace("LVOS", ("LVOS", "LVOS_V1")),
    "lvos-v2": VideoSetPlace("LVOS", ("LVOS_V2", "LVOS")),
    "vost": VideoSetPlace("VOST", ("VOST",)),
    "burst": VideoSetPlace("BURST", ("BURST",)),
}


class VideoSetTask(TrackedVideos):
    """The videos of a data set. Frames and masks belong together by their names."""

    def __init__(self, config: ReproduceConfig, found: VideoSet, split: str) -> None:
        """Check that every video has frames.

        Raises:
            InputError: it has none.
        """
        self._found, self._split = found, split
        self._given: Mapping[str, GivenMasks] = given_masks(found)
        super().__init__(config, list(self._given))
        self._frames = found.frames()
        for key in self.keys:
            if not (self._frames / key).is_dir():
                raise InputError(f"{self._frames / key}: no frames of video {key}")

    def frames(self, key: str) -> Path:
        """The folder of the frames, at the rate they are published at."""
        return self._frames / key

    def size(self, key: str) -> tuple[int, int]:
        """Of the first frame."""
        return image_size(list_images(self.frames(key))[0])

    def saved(self, key: str) -> Collection[str] | None:
        """The annotated frames; all frames where the data set's server scores."""
        return self._given[key].annotated if len(self._given[key].annotated) > 1 else None

    def prompts(self, key: str) -> Mapping[str, Sequence[Prompt]]:
        """Every object from its first mask; objects of SA-V may overlap: a run for each."""
        index = {path.stem: number for number, path in enumerate(list_images(self.frames(key)))}
        firsts = self._given[key].first()
        if not firsts:
            raise InputError(f"{key}: no object in any annotated frame")
        missing = next((one.frame for one in firsts if one.frame not in index), None)
        if missing is not None:
            raise InputError(f"{self.frames(key)}: no frame {missing}, which is annotated")
        if self._found.kind == "SA-V":
            return {f"{key}/{one.name}": [_prompt(one, index, 1)] for one in firsts}
        return {key: [_prompt(one, index, int(one.name)) for one in firsts]}

    def score(self, store: ReproduceRecords) -> Outcome:
        """J&F of every kind of mask, in 0..1; without a public ground truth, the label maps are all there is."""
        folder, kinds = store.folder / "predictions", self.kinds(store)
        given = self.describe("every object's first mask")
        shared = {"ground truth": self._found.layout, "frames": str(self._frames), "prompt": given}
        if all(len(self._given[key].annotated) == 1 for key in self.keys):
            why = f"the ground truth is not public: send the label maps in {folder}/MASKS to the data set's server"
            return Outcome({name: {} for name in kinds}, shared, (why,))
        reports = {
            name: evaluate_vos(
                self._found.table or self._found.root,
                folder / name,
                split=self._split,
                workers=self.config.workers,
                only=self.keys,
            )
            for name in kinds
        }
        scores = {name: {k: v / 100 for k, v in report.summary().items()} for name, report in reports.items()}
        protocol = next(iter(reports.values())).protocol()
        return Outcome(scores, {**shared, **protocol, "frames": protocol["frames"]})


def _prompt(one: FirstMask, index: Mapping[str, int], object_id: int) -> Prompt:
    return Prompt(index[one.frame], object_id, mask=one.mask)


def open_video_set(name: str) -> Callable[[ReproduceConfig], VideoSetTask]:
    """Opens the data set ``name`` in one of its folders below the data root, or at the root itself."""
    place = VIDEO_SETS[name]

    def open_it(config: ReproduceConfig) -> VideoSetTask:
        root = config.root
        here = next((root / folder for folder in place.folders if (root / folder).is_dir()), root)
        found = find_video_set(here, place.split)
        if found.kind != place.kind:
            where = " or ".join(f"{folder}/" for folder in place.folders)
            raise InputError(
                f"{name}: no {name} in {root}: expected {where} there, in its official layout; found {found.layout}"
            )
        return VideoSetTask(config, found, place.split)

    return open_it
