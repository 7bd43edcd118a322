"""The recipes as data: what `configs/training/*.yaml` may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidseg.sam.config import SamConfig
from vidseg.training.batches import PromptMix
from vidseg.training.loop import LoopConfig
from vidseg.training.scenes import SceneConfig


@dataclass(frozen=True, slots=True)
class SceneData:
    """Where scenes come from: images with masks, clips, cut-outs below one root."""

    root: Path
    weights: dict[str, float]
    """Share of every source (the part of a file name before the first underscore; `video` for clips)."""
    max_side: int = 640
    """Images are kept in memory at most this large."""
    clip_stride: int = 3
    cutouts: bool = True
    held_out: int = 4
    """Percent of the still images that are kept for choosing."""


@dataclass(frozen=True, slots=True)
class CompactRecipe:
    """Training of the compact model: `train base`, or `train hq` with `start` naming the base file."""

    network: SamConfig
    data: SceneData
    loop: LoopConfig
    start: Path | None = None
    """Weights to start from; none means ImageNet weights for the trunk."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    mix: PromptMix = field(default_factory=PromptMix)
    images: int = 4
    """Images per batch."""
    prompts: int = 6
    """Prompts per image."""
    points: int = 1024
    """Points of the loss per mask."""
    shapes: tuple[tuple[int, int], ...] = ((352, 352),)
    """Heights and widths of the scenes, drawn evenly."""
    again: float = 0.3
    """Share of the steps with a second round on the first answer."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameter names that do not learn."""
    slow: dict[str, float] = field(default_factory=dict)
    """Prefixes of parameter names with a factor on their learning rate."""
    autocast: Literal["none", "bfloat16"] = "none"
    threads: int = 1
