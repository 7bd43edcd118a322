"""A recipe for own images, made of two folders and the name of a model: `vidseg train hq --images DIR --masks DIR`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidseg.errors import UsageError
from vidseg.loading import locate_sam
from vidseg.sam.config import SamConfig, model_names, named_config
from vidseg.sam.convert import SAM, infer_sam_config, official_sam_state
from vidseg.training.recipe import FolderData, Recipe
from vidseg.training.schedule import LoopConfig
from vidseg.weights.read import read_weights

_HQ_OF = {"mobile-sam": "sam-hq-vit-tiny"}
"""Names of the HQ-SAM of a SAM, where it is not the same with `hq`."""
_COMPACT_LR, _LR = 3e-4, 1e-3


def own_recipe(
    images: Path, masks: Path, start: str, *, steps: int, held_out: int, batch: int, half: bool = False
) -> Recipe:
    """Train the HQ parts of ``start`` (a name of the catalogue or a file) for ``steps`` on a folder of images.

    ``held_out`` percent of the images, at least one, are kept for validation; ``batch`` images make a batch, four a
    step; ``half`` computes in bfloat16.

    Raises:
        UsageError: a folder whose name has a colon. WeightsError: a file that is no SAM.
    """
    for folder in (images, masks):
        if ":" in str(folder.absolute())[2:]:  # behind a drive of Windows
            raise UsageError(f"{folder}: a folder whose name has a colon cannot be used; rename it")
    network = hq_config(start)
    compact = network.encoder == "compact"
    return Recipe(
        network=network,
        start=Path(start),
        folders=FolderData(
            root=Path(),
            sets=(f"{images.absolute()}:{masks.absolute()}",),
            held_out=held_out,
            scale=(0.5, 2.0),
        ),
        loop=LoopConfig(
            steps=steps,
            lr=_COMPACT_LR if compact else _LR,
            warmup=min(30, steps),
            clip=5.0,
            ema=0.998,
            accumulate=max(1, 4 // batch),
            save_every=max(1, min(100, steps // 5)),
            validate_every=max(1, steps // 5),
            log_every=max(1, min(20, steps // 10)),
        ),
        images_per_batch=batch,
        points=2048 if compact else 12544,
        autocast="bfloat16" if half else "none",
    )


def hq_config(start: str) -> SamConfig:
    """Sizes of the network with HQ parts that begins as ``start``."""
    name = _HQ_OF.get(start, start.replace("sam-vit", "sam-hq-vit"))
    if name in model_names():
        return named_config(name)
    return replace(embedded_config(start), hq=True)


def embedded_config(name: str) -> SamConfig:
    """Sizes of the network in a file of weights: a name of the catalogue, or a path."""
    file = read_weights(locate_sam(name)[1], SAM)
    return infer_sam_config(official_sam_state(file), str(file.path), file.metadata)
