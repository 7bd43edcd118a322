"""What XMem gives to the training loop: its network, the loss of a batch of sequences, and the file it leaves."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vidseg.errors import WeightsError
from vidseg.names import printable
from vidseg.training.ahead import Ahead
from vidseg.training.loop import Loop
from vidseg.training.resume import flatten
from vidseg.training.schedule import BatchRandomness
from vidseg_trackers.xmem.compact import CompactKeyEncoder
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.training.bank import Bank, load_bank
from vidseg_trackers.xmem.training.config import TrainConfig
from vidseg_trackers.xmem.training.losses import sequence_loss
from vidseg_trackers.xmem.training.model import compact_config, export_network, normalise, start_network
from vidseg_trackers.xmem.training.sequences import SequenceOptions, make_sequence
from vidseg_trackers.xmem.training.unroll import unroll
from vidseg_trackers.xmem.weights import load_network

WEIGHTS = "compact-xmem.safetensors"


def train(config: TrainConfig, folder: Path, *, resume: bool, device: torch.device) -> Path:
    """Run the recipe into ``folder`` (checkpoint, log.jsonl, weights); returns the path of the weights.

    Raises:
        InputError: data that is missing or wrong, before the first step.
        WeightsError: ``resume`` without a checkpoint that fits. UsageError: with one of another recipe.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(config.threads)
    bank = load_bank(Path(config.data), source_weights=config.source_weights, held_out=config.held_out)
    loop = training_loop(config, bank, folder, device)
    if resume:
        loop.resume()
    weights = folder / WEIGHTS
    provenance = {"recipe": json.dumps(asdict(config), sort_keys=True), "licence": "research use (see the model card)"}

    def write(step: int) -> dict[str, float]:
        export_network(loop.model, weights, {**provenance, "iteration": str(step)})
        return {}

    loop.run(write)
    logging.getLogger("vidseg").info("%s", printable(str(weights)))
    return weights


def training_loop(config: TrainConfig, bank: Bank, folder: Path, device: torch.device) -> Loop[XMem]:
    """The loop over sequences of ``bank``, before its first step."""
    if config.start:
        network = load_network(config.start, device=device, offline=False).float().requires_grad_(True).train()
    else:
        network = start_network(compact_config(config.network), bank, pretrained=config.pretrained, seed=config.seed)
    _freeze(network, config.frozen_trunk_stages)
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    ahead = Ahead(partial(_batch, config, bank), config.loop, config.workers)

    def loss(draw: BatchRandomness) -> Mapping[str, Tensor]:
        frames, labels, memorise, given = ahead(draw)
        frames, labels = normalise(frames.to(device)), labels.to(device)
        masks = torch.stack([(labels == n).float() for n in range(1, int(labels[:, 0].max()) + 1)], 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logits = unroll(network, frames, {t: masks[:, t] for t in (0, *given)}, memorise)
        return {"loss": sequence_loss(logits, labels.long(), config.hardest_share(draw.batch))}

    factors = {"key_encoder.trunk.": config.trunk_rate}
    return Loop(network, loss, config.loop, folder, factors, recipe=describe(config, bank))


def _batch(config: TrainConfig, bank: Bank, draw: BatchRandomness) -> tuple[Tensor, Tensor, list[bool], list[int]]:
    """uint8 frames (B, T, S, S, 3), labels (B, T, S, S), which frames are written to memory and which are corrected."""
    stage, rng = config.stage_at(draw.batch), draw.rng
    options = SequenceOptions(
        size=stage.size,
        length=stage.length,
        clip_fraction=stage.clip_fraction,
        max_skip=stage.max_skip,
        motion=stage.motion,
        leave=stage.leave_chance,
    )
    objects = 1 + int(rng.choice(len(config.object_chances), p=config.object_chances))
    made = [make_sequence(bank, options, objects, rng) for _ in range(stage.batch)]
    memorise = (rng.random(stage.length - 1) < stage.memory_chance).tolist()
    corrected = stage.length > 2 and rng.random() < stage.given_chance
    given = [int(rng.integers(1, stage.length - 1))] if corrected else []
    frames = torch.from_numpy(np.stack([m.frames for m in made]))
    return frames, torch.from_numpy(np.stack([m.labels for m in made])), memorise, given


_FREE = ("threads", "workers", "log_every", "checkpoint_every")
"""Settings that decide no weights."""


def describe(config: TrainConfig, bank: Bank) -> dict[str, Any]:
    """Everything that decides the trained weights, by name, in one level."""
    values = {name: value for name, value in flatten(asdict(config)).items() if name not in _FREE}
    return values | {"data": f"{len(bank.stills)} stills, {len(bank.sprites)} cutouts, {len(bank.clips)} clips"}


def _freeze(network: XMem, stages: int) -> None:
    """Freeze the first ``stages`` stages of the trunk, and the stem with them."""
    encoder = network.key_encoder
    if not isinstance(encoder, CompactKeyEncoder):
        raise WeightsError("training is for networks with compact encoders")
    for module in [encoder.trunk.stem, *encoder.trunk.stages[:stages]] if stages else []:
        module.requires_grad_(False)
