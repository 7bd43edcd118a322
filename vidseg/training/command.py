"""`vidseg train base` and `vidseg train hq`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from vidseg.errors import OutputError
from vidseg.options import load_yaml
from vidseg.runtime import resolve_device
from vidseg.training.recipe import Recipe
from vidseg.training.trainer import train


@dataclass(frozen=True)
class TrainBaseCommand:
    """Train a plain SAM on boxes, points and masks: the first stage of the embedded compact model."""

    config: Path
    """Recipe (YAML), such as configs/training/compact-base.yaml."""
    output: Path
    """Folder for checkpoints, log.jsonl and the trained weights."""
    resume: bool = False
    """Go on from the checkpoint in the output folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Train; 0 when done."""
        return _run(self, hq=False)


@dataclass(frozen=True)
class TrainHqCommand:
    """Train the HQ parts of a frozen SAM of any size.

    Several processes: torchrun --nproc-per-node N -m vidseg train hq ...
    """

    config: Path
    """Recipe (YAML), such as configs/training/compact-hq.yaml or hq-vit-b.yaml."""
    output: Path
    """Folder for checkpoints, log.jsonl and the trained weights."""
    resume: bool = False
    """Go on from the checkpoint in the output folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Train; 0 when done."""
        return _run(self, hq=True)


def _run(command: TrainBaseCommand | TrainHqCommand, hq: bool) -> int:
    recipe = load_yaml(Recipe, command.config)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if not command.resume and (command.output / "last.pt").exists():
        raise OutputError(f"{command.output}: holds a training run already; add --resume or name another folder")
    device = resolve_device(command.device)
    if world > 1:
        torch.distributed.init_process_group("gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        rank = torch.distributed.get_rank() if world > 1 else 0
        train(recipe, command.output, hq, command.resume, device, rank, world)
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
    return 0
