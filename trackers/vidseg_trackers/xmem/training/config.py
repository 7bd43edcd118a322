"""The recipe: everything that decides the trained weights, read from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vidseg.errors import UsageError
from vidseg.training.schedule import LoopConfig


@dataclass(frozen=True)
class TrainingStage:
    """A stretch of iterations with sequences of one kind."""

    iterations: int
    size: int = 256
    """Side of the square frames."""
    length: int = 3
    """Frames per sequence."""
    batch: int = 4
    clip_fraction: float = 0.0
    """Share of sequences made from real clips; the others are made from stills."""
    max_skip: int = 3
    """Largest step between frames taken from a clip."""
    motion: float = 1.0
    """Factor on the synthetic motion."""
    memory_chance: float = 0.4
    """Chance that a frame after the first is written to memory (and updates the sensory memory deeply)."""
    given_chance: float = 0.0
    """Chance that one frame between the first and the last is given with its true masks, like a correction."""
    leave_chance: float = 0.0
    """Chance that a path leads far out of the frame and back, so that objects leave and return."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.iterations < 1 or self.batch < 1:
            raise UsageError(f"stage: iterations {self.iterations} and batch {self.batch} must be at least 1")
        for name in ("clip_fraction", "memory_chance", "given_chance", "leave_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"stage: {name} {getattr(self, name)}: expected 0 to 1")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: str
    """Folder with train/{images,masks}, cutouts and videos."""
    stages: tuple[TrainingStage, ...]
    seed: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    """Dimensions (fields of XMemConfig)."""
    source_weights: dict[str, Any] = field(default_factory=dict)
    """Share of each source of stills in sampling, 1 unless named."""
    held_out: tuple[str, ...] = ()
    """Training clips kept out for choosing between runs (the dev third is always kept out)."""
    object_chances: tuple[float, ...] = (0.45, 0.4, 0.15)
    """Chance that a batch has 1, 2, ... objects per sequence."""
    start: str = ""
    """Weights to start from, a name of `vidseg weights list` or a file, instead of ``network`` and ``pretrained``."""
    pretrained: bool = True
    """Start the trunk from ImageNet weights and the keys from a whitening of its features."""
    frozen_trunk_stages: int = 2
    """Stages of the trunk that keep their ImageNet weights (0 to 4); the stem is frozen with the first."""
    learning_rate: float = 4e-4
    trunk_rate: float = 0.1
    """Factor on the learning rate for the trunk."""
    warmup: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 3.0
    ema: float = 0.998
    """Decay of the average of weights that is exported (shorter at the start)."""
    bootstrap_start: float = 0.1
    """Fractions of the run between which the cross-entropy goes from all pixels to the hardest ``hardest``."""
    bootstrap_end: float = 0.5
    hardest: float = 0.15
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    threads: int = 1
    """Threads of PyTorch and OpenCV; 0 leaves their own choice."""
    workers: int = 0
    """Threads that make sequences ahead of their steps: for a GPU; 0 = none."""
    log_every: int = 20
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if not self.stages:
            raise UsageError("training needs at least one stage")
        if not 0 <= self.frozen_trunk_stages <= 4:
            raise UsageError(f"frozen_trunk_stages {self.frozen_trunk_stages}: expected 0 to 4")
        if abs(sum(self.object_chances) - 1) > 1e-6:
            raise UsageError(f"object_chances {self.object_chances}: must add up to 1")

    @property
    def iterations(self) -> int:
        """Iterations of all stages."""
        return sum(stage.iterations for stage in self.stages)

    @property
    def loop(self) -> LoopConfig:
        """The numbers of the optimisation."""
        return LoopConfig(
            steps=self.iterations,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            floor=0.0,
            clip=self.clip_norm,
            ema=self.ema,
            seed=self.seed,
            save_every=self.checkpoint_every,
            validate_every=self.checkpoint_every,
            log_every=self.log_every,
        )

    def hardest_share(self, iteration: int) -> float:
        """The share of the pixels that count in the cross-entropy of ``iteration`` (from 0)."""
        done = iteration / self.iterations - self.bootstrap_start
        phase = done / max(1e-6, self.bootstrap_end - self.bootstrap_start)
        return 1 - (1 - self.hardest) * min(1.0, max(0.0, phase))

    def stage_at(self, iteration: int) -> TrainingStage:
        """The stage ``iteration`` (from 0) belongs to."""
        for stage in self.stages:
            if iteration < stage.iterations:
                return stage
            iteration -= stage.iterations
        raise UsageError(f"iteration beyond the end of the run ({self.iterations})")
