"""One small training loop: steps, schedule, average of the weights, checkpoints, log.

Every step draws from generators seeded by (seed, step), so a resumed run is the run that was never interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import UsageError, WeightsError
from vidseg.training.average import Averaged
from vidseg.training.resume import CHECKPOINT, LOG, check_recipe, dump_recipe, trim_log
from vidseg.training.schedule import BatchRandomness, LoopConfig
from vidseg.weights.read import read_checkpoint

Losses = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)


class Loop(Generic[M]):
    """Trains the parameters of ``model`` that require gradients.

    ``loss(draw)`` returns the named parts of one batch's loss; ``"loss"`` is the one to minimise. ``lr_factors`` maps
    prefixes of parameter names to a factor on the learning rate. ``recipe`` is what decides the result, by name: it
    goes into the checkpoint, and a checkpoint of another one is not continued.
    """

    def __init__(
        self,
        model: M,
        loss: Callable[[BatchRandomness], Losses],
        config: LoopConfig,
        folder: Path,
        lr_factors: Mapping[str, float] | None = None,
        rank: int = 0,
        world: int = 1,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.loss, self.config, self.folder = model, loss, config, folder
        self.rank, self.world = rank, world
        self.trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise UsageError("training: no parameter is left to learn")
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.trained.items():
            factor = next((f for prefix, f in (lr_factors or {}).items() if name.startswith(prefix)), 1.0)
            groups.setdefault(factor, []).append(parameter)
        self.factors = list(groups)
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = kind(
            [{"params": group} for group in groups.values()], lr=config.lr, weight_decay=config.weight_decay
        )
        self.average = {k: p.detach().clone() for k, p in self.trained.items()} if config.ema else {}
        self.step = self._saved = 0
        self._whole = True
        self.recipe = recipe
        self.writer: Any = None

    @property
    def checkpoint(self) -> Path:
        """The file a run resumes from."""
        return self.folder / CHECKPOINT

    def save(self) -> None:
        """Write the checkpoint; it appears whole or not at all."""
        state = {
            "step": self.step,
            "model": {k: p.detach() for k, p in self.trained.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "recipe": dump_recipe(self.recipe),
        }
        with atomic_file(self.checkpoint) as file:
            torch.save(state, file)
        self._saved = self.step

    def resume(self, path: Path | None = None) -> None:
        """Continue from a checkpoint of this loop; what the log says of later steps is removed.

        Raises:
            WeightsError: missing, damaged, no checkpoint, or of another network. UsageError: of another recipe.
        """
        path = path or self.checkpoint
        if not path.is_file():
            raise WeightsError(f"{path}: no checkpoint to resume from")
        state = read_checkpoint(path)
        lacking = [part for part in ("step", "model", "average", "optimizer") if part not in state]
        if lacking:
            raise WeightsError(f"{path} is not a checkpoint of a training: it has no {' and no '.join(lacking)}")
        check_recipe(path, state.get("recipe"), self.recipe)
        if set(state["model"]) != set(self.trained):
            odd = sorted(set(state["model"]) ^ set(self.trained))
            raise WeightsError(f"{path}: made for other parameters (first difference: {odd[0]})")
        bent = [k for k, p in self.trained.items() if getattr(state["model"][k], "shape", None) != p.shape]
        if bent:  # copying would spread what is too small
            raise WeightsError(f"{path}: made for another network ({bent[0]} has another shape)")
        try:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(state["model"][name])
                    if name in self.average:
                        self.average[name].copy_(state["average"].get(name, state["model"][name]))
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = self._saved = int(state["step"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{path}: made for another network ({first})") from error
        if self.rank == 0:
            trim_log(self.folder / LOG, self.step)

    def run(self, validate: Callable[[int], Mapping[str, float]] | None = None) -> None:
        """Train to the configured step, saving and logging on the way; ``validate`` sees the averaged weights.

        When it is interrupted or fails between two steps, the steps that are done are saved first.
        """
        make_folder(self.folder)
        try:
            self._run(validate)
        except WeightsError:  # diverged: an older checkpoint is worth more
            raise
        except BaseException:
            if self.rank == 0 and self._whole and self.step != self._saved:
                self.save()
            raise

    def _run(self, validate: Callable[[int], Mapping[str, float]] | None) -> None:
        config = self.config
        began, seen, sums = time.monotonic(), 0, dict[str, float]()
        while self.step < config.last:
            for name, value in self._step().items():
                sums[name] = sums.get(name, 0.0) + value
            seen += 1
            if self.step % config.log_every == 0 or self.step == config.last:
                means = {k: round(v / seen, 5) for k, v in sums.items()}
                seconds = round((time.monotonic() - began) / seen, 3)
                self.log({"step": self.step, "lr": config.rate(self.step - 1), "seconds": seconds, **means})
                left = timedelta(seconds=round((config.last - self.step) * seconds))
                progress = "step %d/%d  loss %.4f  learning rate %.1e  %.2f s a step  %s left"
                told = (self.step, config.last, means["loss"], config.rate(self.step - 1), seconds, left)
                logging.getLogger("vidseg").info(progress, *told)
                began, seen, sums = time.monotonic(), 0, {}
            if self.rank == 0 and (self.step % config.save_every == 0 or self.step == config.last):
                self.save()
            due = config.validate_every and self.step % config.validate_every == 0
            if validate is not None and self.rank == 0 and (due or self.step == config.last):
                with self.averaged():
                    scores = validate(self.step)
                if scores:
                    self.log({"step": self.step, **{k: round(v, 5) for k, v in scores.items()}})
                began = time.monotonic()

    def _step(self) -> dict[str, float]:
        config = self.config
        for factor, group in zip(self.factors, self.optimizer.param_groups, strict=True):
            group["lr"] = config.rate(self.step) * factor
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        parts = self.world * config.accumulate
        for part in range(config.accumulate):
            losses = self.loss(BatchRandomness.of(config.seed, self.step, self.rank + self.world * part, parts))
            (losses["loss"] / config.accumulate).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / config.accumulate
        self._share_gradients()
        if config.clip:
            totals["norm"] = float(nn.utils.clip_grad_norm_(self.trained.values(), config.clip))
        if not math.isfinite(totals["loss"]):
            raise WeightsError(f"training diverged at step {self.step}: loss is {totals['loss']}; lower lr")
        self._whole = False
        self.optimizer.step()
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.average.items():
                value.lerp_(self.trained[name].detach(), 1 - decay)
        self.step += 1
        self._whole = True
        return totals

    def _share_gradients(self) -> None:
        """Mean of the gradients over all processes. Small models: one flat tensor is enough.

        A parameter that has no gradient in any process keeps none, so that the optimizer leaves it alone.
        """
        if self.world == 1:
            return
        parameters = list(self.trained.values())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = torch.tensor([float(p.grad is not None) for p in parameters]).to(gradients[0])
        flat = torch.cat([there, *(g.flatten() for g in gradients)])
        torch.distributed.all_reduce(flat)
        counts, *pieces = flat.split([len(parameters), *(g.numel() for g in gradients)])
        for parameter, count, piece in zip(parameters, counts.tolist(), pieces, strict=True):
            parameter.grad = (piece / self.world).view_as(parameter) if count else None

    def averaged(self) -> Averaged:
        """Context in which the model carries the averaged weights (its own ones when no average is kept)."""
        return Averaged(self.model, self.trained, self.average)

    def log(self, record: Mapping[str, Any]) -> None:
        """One JSON line to ``log.jsonl`` of the run's folder; ``record`` has a ``step``."""
        if self.rank != 0:
            return
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.config.tensorboard:
            if self.writer is None:
                self.writer = _tensorboard(self.folder)
            for name, value in record.items():
                self.writer.add_scalar(name, value, record["step"])
            self.writer.flush()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("loop.tensorboard needs the package tensorboard: pip install 'vidseg[train]'") from error
    return SummaryWriter(str(folder / "tensorboard"))


def set_trainable(model: nn.Module, keep: Callable[[str], bool]) -> None:
    """Let exactly the parameters whose name ``keep`` accepts learn."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(keep(name))
