"""The numbers of a training - steps, learning rate, decay of the average - and the randomness of its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from vidseg.errors import UsageError


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The numbers of an optimisation. Steps count optimizer steps."""

    steps: int
    lr: float
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Literal["cosine", "step"] = "cosine"
    decay: float = 1.0
    """cosine: the share of the steps, at the end, over which the rate falls from ``lr`` to ``floor`` of it."""
    floor: float = 0.02
    milestone: int = 0
    """step: from this step on the rate is a tenth."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Decay of the running average of the weights; 0 keeps none."""
    stop: int = 0
    """End after this step, before the schedule of ``steps`` ends (early stopping); 0 = with the schedule."""
    accumulate: int = 1
    """Batches per step."""
    seed: int = 0
    save_every: int = 500
    validate_every: int = 0
    log_every: int = 20
    tensorboard: bool = False
    """Also write the log for TensorBoard (pip install 'vidseg[train]')."""

    def __post_init__(self) -> None:
        """Refuse numbers no run can have."""
        if self.steps < 1 or self.lr <= 0 or self.accumulate < 1:
            raise UsageError(
                f"training: steps {self.steps}, lr {self.lr}, accumulate {self.accumulate} must be positive"
            )
        if not 0 < self.decay <= 1 or not 0 <= self.ema < 1:
            raise UsageError(f"training: decay {self.decay} must be in (0, 1] and ema {self.ema} in [0, 1)")
        if not 0 <= self.stop <= self.steps:
            raise UsageError(f"training: stop {self.stop} must be a step of the {self.steps}, or 0")

    @property
    def last(self) -> int:
        """The step with which the training ends."""
        return self.stop or self.steps

    def times(self, factor: int) -> LoopConfig:
        """The same loop with everything that is counted in epochs multiplied by the steps of an epoch."""
        return replace(
            self,
            steps=self.steps * factor,
            milestone=self.milestone * factor,
            stop=self.stop * factor,
            save_every=self.save_every * factor,
            validate_every=self.validate_every * factor,
        )

    def rate(self, step: int) -> float:
        """Learning rate of ``step`` (0-based)."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        if self.schedule == "step":
            return rate * (0.1 if self.milestone and step >= self.milestone else 1.0)
        start = self.steps * (1 - self.decay)
        if step <= start:
            return rate
        progress = min(1.0, (step - start) / (self.steps - start))
        return rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True, slots=True)
class BatchRandomness:
    """The randomness of one batch: the same for the same (seed, step, part)."""

    batch: int
    """Number of the batch since the beginning, over all processes."""
    rng: np.random.Generator
    torch: torch.Generator

    @classmethod
    def of(cls, seed: int, step: int, part: int, parts: int) -> BatchRandomness:
        """``part`` of ``parts`` tells apart the batches of one step (accumulation, processes)."""
        rng = np.random.default_rng((seed, step, part))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return cls(step * parts + part, rng, generator)
