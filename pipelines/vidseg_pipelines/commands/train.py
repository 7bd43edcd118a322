"""`vidseg train base` and `vidseg train hq`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg.atomic_files import clear_parts, make_folder
from vidseg.errors import UsageError
from vidseg.locks import file_lock
from vidseg_pipelines.commands.recipes import load_recipe

if TYPE_CHECKING:
    from vidseg.training.recipe import Recipe

_LONGEST_VALIDATION = timedelta(days=7)
"""How long the other processes wait for the first one's validation; if it fails, all of them end."""


@dataclass(frozen=True)
class TrainBaseCommand:
    """Train a plain SAM on boxes, points and masks: the first stage of the embedded compact model.

    All data is checked before the first step, as in `vidseg train hq`.
    """

    config: Path
    """Recipe (YAML), such as configs/training/compact-base.yaml."""
    output: Path
    """Folder for checkpoints, log.jsonl and the trained weights."""
    data: Path | None = None
    """Folder of the recipe's data, replacing the one that it names."""
    resume: bool = False
    """Continue from the checkpoint in the output folder, with the same recipe and data; only steps, stop and the
    settings of logging and validation may differ."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Train; 0 when done."""
        return _run(self, hq=False)


@dataclass(frozen=True)
class TrainHqCommand:
    """Train the HQ parts of a frozen SAM or SAM 2 of any size, or what else the HQ-SAM paper compares them with: parts
    of SAM, context tokens, LoRA, adapters (configs/training).

    An image NAME.jpg has the masks NAME.png, NAME__0.png, NAME__1.png, ..., in any form: 0 and 255, 0 and 1, a grey
    class value, a palette, colours. All files are checked before the first step, and files left out are listed.
    Exit code 5: done, but damaged images were replaced by others.

    Several processes: torchrun --nproc-per-node N -m vidseg train hq ...

    Examples:
      vidseg train hq --images photos --masks masks --start compact --output runs/mine
      vidseg train hq --config configs/training/hq-vit-b.yaml --data HQSeg-44K --output runs/hq-vit-b
    """

    output: Path
    """Folder for checkpoints, log.jsonl and the trained weights."""
    config: Path | None = None
    """Recipe (YAML), such as configs/training/compact-hq.yaml, hq-vit-b.yaml or hq-sam2.1-hiera-l.yaml."""
    data: Path | None = None
    """Folder of the recipe's data, replacing the one that it names."""
    images: Path | None = None
    """Without a recipe: folder of your own images."""
    masks: Path | None = None
    """Folder of their masks."""
    start: str = "compact"
    """With --images: what to start from, a name of `vidseg weights list` or a file."""
    steps: int = 1000
    """With --images: steps of four images."""
    held_out: int = 10
    """With --images: percent of the images that are kept for validation."""
    images_per_batch: int = 4
    """With --images: images at a time; 2 or 1 need less memory."""
    resume: bool = False
    """Continue from the checkpoint in the output folder, with the same recipe and data; only steps, stop and the
    settings of logging and validation may differ."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dry_run: bool = False
    """Only say which parameters would learn, and how large they and the network are; needs neither weights nor data."""
    json: bool = False
    """With --dry-run: as JSON, with the names and shapes of all that learns."""

    def run(self) -> int:
        """Train; 0 when done."""
        if self.dry_run:
            return _describe(self)
        if self.json:
            raise UsageError("--json goes with --dry-run; a training writes log.jsonl into its output folder")
        return _run(self, hq=True)


def _describe(command: TrainHqCommand) -> int:
    from vidseg.training.parts import describe_recipe
    from vidseg.training.trainer import network_of

    recipe = _recipe(command)
    told = describe_recipe(recipe, network_of(recipe, hq=True))
    if command.json:
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return 0
    trainable, total = told["trainable_mib"], told["total_mib"]
    lines = [f"{name} {tuple(shape)}" for name, shape in told["trainable"].items()]
    lines.append(f"{trainable:.2f} MiB learn, of {total:.2f} MiB (float32)")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _recipe(command: TrainBaseCommand | TrainHqCommand) -> Recipe:
    """The recipe of a command: a file, or made for its own images."""
    from vidseg.runtime import resolve_device
    from vidseg.training.own_images import own_recipe
    from vidseg.training.recipe import Recipe

    if isinstance(command, TrainHqCommand) and command.config is None:
        if command.images is None or command.masks is None:
            raise UsageError("what to train on? --images DIR --masks DIR, or --config RECIPE (see docs/training.md)")
        if command.data is not None:
            raise UsageError("--data goes with --config; your own images are in --images and --masks")
        for name in ("steps", "images_per_batch"):
            if getattr(command, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(command, name)}: must be at least 1")
        if not 0 <= command.held_out < 100:
            raise UsageError(f"--held-out {command.held_out}: expected 0 to 99 percent")
        return own_recipe(
            command.images,
            command.masks,
            command.start,
            steps=command.steps,
            held_out=command.held_out,
            batch=command.images_per_batch,
            half=resolve_device(command.device).type == "cuda",
        )
    if isinstance(command, TrainHqCommand) and (command.images or command.masks):
        raise UsageError("--images and --masks go without --config; the recipe's data is in --data")
    assert command.config is not None
    recipe = load_recipe(Recipe, command.config, "hq" if isinstance(command, TrainHqCommand) else "base")
    if command.data is None:
        return recipe
    scenes = recipe.scenes and replace(recipe.scenes, root=command.data)
    folders = recipe.folders and replace(recipe.folders, root=command.data)
    return replace(recipe, scenes=scenes, folders=folders)


def _run(command: TrainBaseCommand | TrainHqCommand, hq: bool) -> int:
    import torch

    from vidseg.runtime import resolve_device
    from vidseg.training.trainer import train

    recipe = _recipe(command)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = resolve_device(command.device)
    if world > 1:
        torch.distributed.init_process_group("gloo", timeout=_LONGEST_VALIDATION)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        rank = torch.distributed.get_rank() if world > 1 else 0
        with training_in(command.output, resume=command.resume, rank=rank):
            train(recipe, command.output, hq, command.resume, device, rank, world)
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
    return 0


@contextmanager
def training_in(folder: Path, *, resume: bool = False, rank: int = 0) -> Iterator[None]:
    """Lock ``folder`` for a training run and show its log messages on standard error.

    Of several processes only the first (``rank`` 0) locks, and only it shows more than errors.

    Raises:
        UsageError: the folder holds a training run and ``resume`` is false, or another process trains in it.
    """
    from vidseg.training.resume import CHECKPOINT

    if not resume and rank == 0 and (folder / CHECKPOINT).exists():
        raise UsageError(f"{folder}: already holds a training run; add --resume or choose another --output")
    with _messages(logging.INFO if rank == 0 else logging.ERROR):
        if rank:
            yield
            return
        make_folder(folder)
        busy = f"{folder}: another training run is writing to it; wait for it, or choose another --output"
        with file_lock(folder / "train.lock", busy, keep=False):
            clear_parts(folder)
            yield


@contextmanager
def _messages(lowest: int) -> Iterator[None]:
    logger, handler = logging.getLogger("vidseg"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.setLevel(lowest)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
