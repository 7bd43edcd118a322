"""Batches for prompt training: scenes as one image tensor, and for every image a number of prompts of one kind each.

All prompts of a batch have the same number of sparse tokens, so that one decoder call serves them: a box has two, one
click with its padding point too; a box with two points has four, as three points with theirs; a mask alone has none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vidseg.datasets.pairs import Mask
from vidseg.errors import UsageError
from vidseg.training.scenes import Scene, SceneMaker
from vidseg.training.simulated_prompts import BOX_SHARES, click, clicks, jitter_box, noisy_logits, tight_box

Layout = Literal["two", "four", "none"]


@dataclass(frozen=True, slots=True)
class PromptMix:
    """Shares of the kinds of prompts."""

    four: float = 0.2
    """Batches with four tokens: box and two points, or three points."""
    none: float = 0.06
    """Batches with a mask prompt alone."""
    click: float = 0.22
    """Prompts of points without a box."""
    mask: float = 0.3
    """Prompts that carry a mask beside their box or points."""
    boxes: tuple[float, float, float] = BOX_SHARES
    """Boxes that are careful, hasty and badly off, see :func:`.jitter_box`; they add up to 1."""

    def __post_init__(self) -> None:
        """Refuse shares of boxes that are no shares."""
        if min(self.boxes) < 0 or abs(sum(self.boxes) - 1) > 1e-6:
            raise UsageError(f"recipe: prompt_mix.boxes {list(self.boxes)}: expected three shares that add up to 1")


@dataclass(frozen=True, slots=True)
class Batch:
    """B images with N prompts; ``rows[i]`` is the image of prompt i.

    ``images`` (B, 3, H, W) are grey levels 0..255; ``targets`` (N, 1, H, W) in 0..1; ``boxes`` (N, 4); ``points``
    (N, P, 2) with ``labels`` (N, P), P = 0 when there are none; ``is_box`` (N,) tells which prompts use their box;
    ``logits`` (N, 1, H/4, W/4) with ``has_mask`` (N,); ``fine`` (N,) says whose target can teach outlines.
    """

    images: Tensor
    rows: Tensor
    targets: Tensor
    layout: Layout
    boxes: Tensor
    is_box: Tensor
    points: Tensor
    labels: Tensor
    box_points: Tensor
    box_labels: Tensor
    logits: Tensor
    has_mask: Tensor
    fine: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        moved = {f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


def make_batch(
    rng: np.random.Generator, maker: SceneMaker, images: int, prompts: int, height: int, width: int, mix: PromptMix
) -> Batch:
    """``images`` scenes with ``prompts`` prompts each (objects repeat, with other prompts, when there are fewer)."""
    scenes = [maker.make(rng, height, width) for _ in range(images)]
    draw = rng.random()
    layout: Layout = "four" if draw < mix.four else "none" if draw < mix.four + mix.none else "two"
    return prompt_batch(rng, scenes, prompts, layout, mix)


def prompt_batch(rng: np.random.Generator, scenes: list[Scene], prompts: int, layout: Layout, mix: PromptMix) -> Batch:
    """Prompts for given scenes, see :func:`make_batch`."""
    height, width = scenes[0].image.shape[:2]
    masks, others, rows = [], list[list[Mask]](), []
    for row, scene in enumerate(scenes):
        order = np.concatenate([rng.permutation(len(scene.masks)) for _ in range(-(-prompts // len(scene.masks)))])
        masks += [scene.masks[i] for i in order[:prompts]]
        others += [[m for k, m in enumerate(scene.masks) if k != i] for i in order[:prompts]]
        rows += [row] * prompts
    n = len(masks)
    loose = 3 if layout == "four" else 1
    boxes = np.stack([jitter_box(rng, tight_box(m), height, width, mix.boxes) for m in masks])
    is_box = rng.random(n) >= mix.click if layout != "none" else np.zeros(n, dtype=bool)
    has_mask = rng.random(n) < np.where(is_box, mix.mask, mix.mask / 3) if layout != "none" else np.ones(n, dtype=bool)
    points, labels = np.zeros((n, loose, 2), np.float32), np.ones((n, loose), np.int64)
    beside = 2 if layout == "four" else 0
    box_points, box_labels = np.zeros((n, beside, 2), np.float32), np.ones((n, beside), np.int64)
    logits = np.zeros((n, 1, height // 4, width // 4), np.float32)
    for i, mask in enumerate(masks):
        if layout == "four" and is_box[i]:
            box_points[i], box_labels[i] = clicks(rng, mask, 2, others[i])
        elif layout == "four":
            points[i], labels[i] = clicks(rng, mask, 3, others[i])
        elif layout == "two" and not is_box[i]:
            points[i, 0] = click(rng, mask)
        if has_mask[i]:
            logits[i, 0] = noisy_logits(rng, mask)
    pictures = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2)
    return Batch(
        images=pictures,
        rows=torch.tensor(rows),
        targets=torch.from_numpy(np.stack(masks))[:, None].float() / 255,
        layout=layout,
        boxes=torch.from_numpy(boxes),
        is_box=torch.from_numpy(is_box),
        points=torch.from_numpy(points),
        labels=torch.from_numpy(labels),
        box_points=torch.from_numpy(box_points),
        box_labels=torch.from_numpy(box_labels),
        logits=torch.from_numpy(logits),
        has_mask=torch.from_numpy(has_mask),
        fine=torch.tensor([scenes[row].fine for row in rows]),
    )
