"""The training loop: seeded, resumable, with an average of weights; one process, few threads."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import WeightsError
from vidseg.training.resume import LOG, check_recipe, dump_recipe, flatten, trim_log
from vidseg.weights.read import read_checkpoint
from vidseg_trackers.xmem.compact import CompactKeyEncoder
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.training.bank import load_bank
from vidseg_trackers.xmem.training.config import TrainConfig
from vidseg_trackers.xmem.training.losses import sequence_loss
from vidseg_trackers.xmem.training.model import compact_config, export, normalise, start_network
from vidseg_trackers.xmem.training.sequences import Bank, SequenceOptions, make_sequence
from vidseg_trackers.xmem.training.unroll import unroll

Log = Callable[[dict[str, Any]], None]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "compact-xmem.safetensors"


class Trainer:
    """Network, optimizer, average of weights and the iteration they are at.

    All randomness of iteration ``i`` comes from a generator seeded with (seed, i), so that a resumed run equals an
    uninterrupted one.
    """

    def __init__(self, config: TrainConfig, bank: Bank) -> None:
        self.config = config
        self.bank = bank
        self.iteration = 0
        network = start_network(compact_config(config.network), bank, pretrained=config.pretrained, seed=config.seed)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.network = network
        trunk = _set_trunk_frozen(network, config.frozen_trunk_stages)
        names = {id(p) for p in trunk}
        rest = [p for p in network.parameters() if p.requires_grad and id(p) not in names]
        self.parameters = trunk + rest
        self.optimizer = torch.optim.AdamW(
            [{"params": trunk, "factor": config.trunk_rate}, {"params": rest, "factor": 1.0}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.average = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def step(self) -> dict[str, float]:
        """One iteration; returns loss and gradient norm."""
        config, i = self.config, self.iteration
        rng = np.random.default_rng((config.seed, i))
        frames, labels, memorise = self._batch(rng)
        objects = int(labels[:, 0].max())
        first = torch.stack([(labels[:, 0] == n).float() for n in range(1, objects + 1)], 1)
        done = i / config.iterations
        phase = (done - config.bootstrap_start) / max(1e-6, config.bootstrap_end - config.bootstrap_start)
        fraction = 1 - (1 - config.hardest) * min(1.0, max(0.0, phase))
        low = torch.autocast("cpu", torch.bfloat16) if config.dtype == "bfloat16" else nullcontext()
        with low:
            logits = unroll(self.network, frames, first, memorise)
        loss = sequence_loss(logits, labels.long(), fraction)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_grad_norm_(self.parameters, config.clip_norm)
        rate = self._rate(i)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        self.iteration += 1
        self._update_average()
        return {"loss": float(loss.detach()), "norm": float(norm), "rate": rate}

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[bool]]:
        """Normalised frames (B, T, 3, S, S), labels (B, T, S, S) and which frames are written to memory."""
        stage = self.config.stage_at(self.iteration)
        options = SequenceOptions(
            size=stage.size,
            length=stage.length,
            clip_fraction=stage.clip_fraction,
            max_skip=stage.max_skip,
            motion=stage.motion,
        )
        chances = self.config.object_chances
        objects = 1 + int(rng.choice(len(chances), p=chances))
        made = [make_sequence(self.bank, options, objects, rng) for _ in range(stage.batch)]
        memorise = (rng.random(stage.length - 1) < stage.memory_chance).tolist()
        frames = normalise(torch.from_numpy(np.stack([m.frames for m in made])))
        return frames, torch.from_numpy(np.stack([m.labels for m in made])), memorise

    def _rate(self, i: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        warm = min(1.0, (i + 1) / self.config.warmup)
        return self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * i / self.config.iterations))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, tensor in self.network.state_dict().items():
            self.average[name].lerp_(tensor, 1 - decay)

    def averaged(self) -> XMem:
        """A network with the averaged weights."""
        network = XMem(self.network.config)
        network.load_state_dict(self.average)
        return network

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs; replaces ``path`` at once."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "iteration": self.iteration,
            "recipe": dump_recipe(describe(self.config, self.bank)),
        }
        with atomic_file(path) as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            WeightsError: the file is damaged or no such checkpoint. UsageError: it is of another recipe.
        """
        state = read_checkpoint(path)
        check_recipe(path, state.get("recipe"), describe(self.config, self.bank))
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = dict(state["average"])
            self.iteration = int(state["iteration"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{path}: not a checkpoint of this recipe ({first})") from error


_FREE = ("threads", "log_every", "checkpoint_every")
"""Settings that decide no weights."""


def describe(config: TrainConfig, bank: Bank) -> dict[str, Any]:
    """Everything that decides the trained weights, by name, in one level."""
    values = {name: value for name, value in flatten(asdict(config)).items() if name not in _FREE}
    return values | {"data": f"{len(bank.stills)} stills, {len(bank.sprites)} cutouts, {len(bank.clips)} clips"}


def _set_trunk_frozen(network: XMem, stages: int) -> list[torch.nn.Parameter]:
    """Freeze the first ``stages`` stages of the trunk (the stem with them); gives the trunk's trainable parameters."""
    encoder = network.key_encoder
    if not isinstance(encoder, CompactKeyEncoder):
        raise WeightsError("training is for networks with compact encoders")
    trunk = encoder.trunk
    frozen = [trunk.stem, *trunk.stages[:stages]] if stages else []
    for module in frozen:
        module.requires_grad_(False)
    return [p for p in trunk.parameters() if p.requires_grad]


def train(config: TrainConfig, output: Path, *, resume: bool, log: Log) -> Path:
    """Run the recipe into ``output`` (checkpoint, log.jsonl, weights); returns the path of the weights.

    With ``resume`` it goes on from the checkpoint in ``output`` if there is one.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    make_folder(output)
    bank = load_bank(Path(config.data), source_weights=config.source_weights, held_out=config.held_out)
    trainer = Trainer(config, bank)
    checkpoint, weights = output / CHECKPOINT, output / WEIGHTS
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
        trim_log(output / LOG, "iteration", trainer.iteration)
    provenance = {"recipe": json.dumps(asdict(config), sort_keys=True), "licence": "research use (see the model card)"}
    losses: list[float] = []
    started, since = time.monotonic(), trainer.iteration
    with (output / LOG).open("a", encoding="utf-8") as journal:
        while trainer.iteration < config.iterations:
            numbers = trainer.step()
            losses.append(numbers["loss"])
            i = trainer.iteration
            if i % config.log_every == 0 or i == config.iterations:
                seconds = (time.monotonic() - started) / (i - since)
                record = {**numbers, "loss": float(np.mean(losses)), "iteration": i, "seconds_per_iteration": seconds}
                journal.write(json.dumps(record) + "\n")
                journal.flush()
                log({**record, "of": config.iterations})
                losses.clear()
            if i % config.checkpoint_every == 0 or i == config.iterations:
                trainer.save(checkpoint)
                export(trainer.averaged(), weights, {**provenance, "iteration": str(i)})
    return weights
