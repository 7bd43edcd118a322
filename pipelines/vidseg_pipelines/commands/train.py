"""`vidseg train base` and `vidseg train hq`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from vidseg.atomic_files import clear_parts, make_folder
from vidseg.errors import OutputError, UsageError
from vidseg.locks import file_lock
from vidseg.options import load_yaml

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
    """

    config: Path
    """Recipe (YAML), such as configs/training/compact-hq.yaml, hq-vit-b.yaml or hq-sam2.1-hiera-l.yaml."""
    output: Path
    """Folder for checkpoints, log.jsonl and the trained weights."""
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
    from vidseg.training.recipe import Recipe
    from vidseg.training.trainer import network_of

    recipe = load_yaml(Recipe, command.config)
    told = describe_recipe(recipe, network_of(recipe, hq=True))
    if command.json:
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return 0
    trainable, total = told["trainable_mib"], told["total_mib"]
    lines = [f"{name} {tuple(shape)}" for name, shape in told["trainable"].items()]
    lines.append(f"{trainable:.2f} MiB learn, of {total:.2f} MiB (float32)")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _run(command: TrainBaseCommand | TrainHqCommand, hq: bool) -> int:
    import torch

    from vidseg.runtime import resolve_device
    from vidseg.training.recipe import Recipe
    from vidseg.training.trainer import train

    recipe = load_yaml(Recipe, command.config)
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
        OutputError: the folder holds a training run and ``resume`` is false. UsageError: another process trains in it.
    """
    from vidseg.training.resume import CHECKPOINT

    if not resume and rank == 0 and (folder / CHECKPOINT).exists():
        raise OutputError(f"{folder}: already holds a training run; add --resume or choose another --output")
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
