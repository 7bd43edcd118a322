"""Images with one mask each: the four sets of hq44k-val and BIG (tables 2, 3, 6, 13, 16, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidseg.datasets import layouts
from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.evaluation.parallel import run_all
from vidseg.evaluation.region import MaskScore, MasksReport, score_mask
from vidseg.files import IMAGE_SUFFIXES
from vidseg.masks.files import FOREGROUND, read_mask_values
from vidseg.masks.rle import decode, encode
from vidseg.types import Rle
from vidseg.video.images import image_size, read_image
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.object_prompts import Floats, object_rng, simulate_prompt
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

RATIO = 0.02


@dataclass(frozen=True, slots=True)
class MaskItem:
    """An image, its mask, and its coarse mask if it has one."""

    name: str
    image: Path
    truth: Path
    coarse: Path | None


class MaskSets:
    """The named sets, each a list of images; scores are means over images, the average one over sets."""

    unit = "images"
    hq_output = "hq"
    squashes = True

    def __init__(self, config: ReproduceConfig, sets: dict[str, list[MaskItem]]) -> None:
        """Check every file's size before anything is computed.

        Raises:
            InputError: a file cannot be read, or a mask has another size than its image.
        """
        self.config = config
        end = config.limit or None
        self._sets = {name: items[:end] for name, items in sets.items()}
        self._items = {f"{name}/{item.name}": item for name, items in self._sets.items() for item in items}
        self.keys: Sequence[str] = list(self._items)
        if len(self.keys) < sum(map(len, self._sets.values())):
            raise InputError(f"{config.root}: two images of a set have the same name, up to the suffix")
        self._given = {} if config.masks_from is None else self._find_given(config.masks_from)
        self.sources: Sequence[Path] = list(self._given.values())
        for key, item in self._items.items():
            size = image_size(item.image)
            for mask in (item.truth, item.coarse, self._given.get(key)):
                if mask is not None and (other := image_size(mask)) != size:
                    raise InputError(
                        f"{mask}: {other[0]}x{other[1]} pixels, but its image {item.image.name} has {size[0]}x{size[1]}"
                    )

    def _find_given(self, folder: Path) -> dict[str, Path]:
        """The given mask of every image: SET/NAME.png, or NAME.png where there is one set."""
        found: dict[str, Path] = {}
        for key, item in self._items.items():
            names = [f"{key}.png", *([f"{item.name}.png"] if len(self._sets) == 1 else [])]
            path = next((folder / name for name in names if (folder / name).is_file()), None)
            if path is None:
                raise InputError(f"{folder}: no mask {' or '.join(names)} for {item.image.name}")
            found[key] = path
        return found

    def check(self, folder: Path) -> None:
        """All was checked at the start."""

    def predict(self, key: str, models: TaskModels, folder: Path) -> Record:
        """One mask per output and trial; nothing is asked where the ground truth is empty."""
        if key in self._given:
            given = read_mask_values(self._given[key]).foreground()
            return {"size": given.shape, "fit": "masks as given", "masks": {"given": [pack(encode(given))]}}
        item, predictor = self._items[key], models.predictor
        image, grey = read_image(item.image), read_mask_values(item.truth).grey()
        mask = predictor.view(grey) > FOREGROUND
        coarse: Floats | None = None
        if self.config.prompt == "coarse-masks" and item.coarse is not None:
            coarse = predictor.view(read_mask_values(item.coarse).grey()).astype(np.float32) / np.float32(255)
        picture = predictor.encode(image)
        masks: dict[str, list[str]] = {output: [] for output in predictor.outputs}
        for trial in range(self.config.draws):
            draw = object_rng(self.config, trial, key)
            asked = simulate_prompt(self.config, draw, mask, coarse) if mask.any() else None
            for output, (rle,) in predictor.predict(picture, [asked]).items():
                masks[output].append(pack(rle))
        return {"size": grey.shape, "fit": predictor.fit, "masks": masks}

    def score(self, store: ReproduceRecords) -> Outcome:
        """mIoU, mBIoU and the recall of figure 4 per set, and the plain mean of the sets."""
        names, trials = variants(store, self.keys)
        reports = {name: [self._report(store, name, trial) for trial in range(trials)] for name in names}
        scores = {name: mean_of([_table(report) for report in drawn]) for name, drawn in reports.items()}
        one = next(iter(reports[names[0]][0].values())).protocol()
        shared = {k: one[k] for k in ("metric", "foreground", "void", "boundary", "ratio")}
        images = {name: len(items) for name, items in self._sets.items()}
        return Outcome(
            scores, {**shared, "images": images, "average": "mean of the sets", "prompt": describe_prompt(self.config)}
        )

    def _report(self, store: ReproduceRecords, name: str, trial: int) -> dict[str, MasksReport]:
        jobs = [
            (self._items[key].name, self._items[key].truth, unpack(record["masks"][name][trial], record["size"]))
            for key, record in store.read(self.keys)
        ]
        scored = iter(run_all(partial(_score, RATIO), jobs, self.config.workers))
        return {n: MasksReport(tuple(next(scored) for _ in items), RATIO, ()) for n, items in self._sets.items()}


def _score(ratio: float, job: tuple[str, Path, Rle]) -> MaskScore:
    name, truth, rle = job
    return score_mask(name, read_mask_values(truth).foreground(), decode(rle), ratio)


def _table(reports: dict[str, MasksReport]) -> Scores:
    table: Scores = {}
    for name, report in reports.items():
        recall = {f"recall@{point}": share for point, share in report.recall().items()}
        table[name] = {**report.summary(), **recall}
    for metric in ("mIoU", "mBIoU"):
        values = [table[name][metric] for name in reports]
        mean = None if None in values else float(np.mean(values))
        table.setdefault("average", {})[metric] = mean
    return table


def open_hq44k_val(config: ReproduceConfig) -> MaskSets:
    """DIS-VD, COIFT, HRSOD and ThinObject5K-TE in the layout of HQ-SAM's training code."""
    chosen = config.chosen_sets or tuple(layouts.MASK_FOLDERS)
    for name in chosen:
        if name not in layouts.MASK_FOLDERS:
            close = did_you_mean(name, layouts.MASK_FOLDERS)
            raise UsageError(f"--sets {name}{close}: allowed are {', '.join(layouts.MASK_FOLDERS)}")
    wanted = [folder for name in chosen for folder in layouts.MASK_FOLDERS[name]]
    found = layouts.need(config.root, "hq44k-val", wanted, "; --sets leaves sets out")
    pairs = zip(found[::2], found[1::2], strict=True)
    return MaskSets(config, {n: _pairs(n, *two, config.coarse) for n, two in zip(chosen, pairs, strict=True)})


def open_big(config: ReproduceConfig) -> MaskSets:
    """The test set of BIG: NAME_im.jpg, NAME_gt.png and the coarse NAME_seg.png in one folder."""
    (folder,) = layouts.need(config.root, "big", [layouts.BIG])
    items = []
    for image in sorted(folder.glob("*_im.*")):
        name = image.stem.removesuffix("_im")
        coarse = None
        if config.prompt == "coarse-masks":
            coarse = config.coarse / f"{name}.png" if config.coarse else folder / f"{name}_seg.png"
        items.append(MaskItem(name, image, folder / f"{name}_gt.png", coarse))
    if not items:
        raise InputError(f"{folder}: no images NAME_im.jpg (with NAME_gt.png and NAME_seg.png)")
    return MaskSets(config, {"big": items})


def _pairs(name: str, images: Path, masks: Path, coarse: Path | None) -> list[MaskItem]:
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{images}: no images of {name}")
    lacking = [path.stem for path in files if not (masks / f"{path.stem}.png").is_file()]
    if lacking:
        some = ", ".join(lacking[:3])
        raise InputError(f"{masks}: {len(lacking)} of {len(files)} images have no mask NAME.png there: {some}")
    return [
        MaskItem(f.stem, f, masks / f"{f.stem}.png", None if coarse is None else coarse / f"{f.stem}.png")
        for f in files
    ]
