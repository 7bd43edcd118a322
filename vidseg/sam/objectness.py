"""How much a mask looks like a thing, not like a wall, a road or a part: what the encoder saw inside it and around it.

SAM's predicted quality says how good a mask is, not whether anybody would call it an object: roads and skies have
excellent masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.masks.parts import parts_at
from vidseg.sam.geometry import click_grid
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.prompt_batch import PromptBatch

if TYPE_CHECKING:
    from vidseg.sam.model import FrameFeatures, SegmentAnything

NOTHING = -1.0
"""Logit of what belongs to a mask but not to the part that was clicked."""
SHAPE = 7
"""Numbers about a mask alone that follow the 2 D about what the encoder saw."""


class Objectness(nn.Linear):
    """A linear judge of masks: the logit of being an object that people would annotate."""

    def __init__(self, dim: int) -> None:
        """``dim``: channels D of the embedding."""
        super().__init__(2 * dim + SHAPE, 1)

    @torch.no_grad()
    def judge(
        self,
        embedding: Float[Tensor, "d gh gw"],
        logits: Float[Tensor, "k h w"],
        iou: Float[Tensor, " k"],
        stability: Float[Tensor, " k"],
    ) -> Float[Tensor, " k"]:
        """Logits for K masks, float32 on the device of the weights; see :func:`describe_masks`."""
        embedding, logits, iou, stability = (t.to(self.weight.device) for t in (embedding, logits, iou, stability))
        described = describe_masks(embedding, logits, iou, stability)
        return F.linear(described, self.weight.float(), self.bias.float())[:, 0]


def describe_masks(
    embedding: Float[Tensor, "d gh gw"],
    logits: Float[Tensor, "k h w"],
    iou: Float[Tensor, " k"],
    stability: Float[Tensor, " k"],
) -> Float[Tensor, "k f"]:
    """2 D + :data:`SHAPE` numbers for each of K masks, whose low-resolution logits show the frame without padding.

    The mean embedding of the cells inside, and that minus the mean in a ring of two cells around; then predicted
    quality, stability, logarithm of the area (share of the frame), height and width of the box, the share of it that is
    filled, and the share of the frame's border that is covered.
    """
    masks = (logits > 0).float()
    rows, columns = -(-masks.shape[1] // 4), -(-masks.shape[2] // 4)
    padded = F.pad(masks, (0, 4 * columns - masks.shape[2], 0, 4 * rows - masks.shape[1]))
    inside = F.avg_pool2d(padded[:, None], 4)[:, 0]
    around = F.max_pool2d(inside[:, None], 5, stride=1, padding=2)[:, 0] * (1 - inside)
    cells = embedding[:, :rows, :columns].float().flatten(1).T
    within, beside = (
        weights.flatten(1) @ cells / weights.flatten(1).sum(1, keepdim=True).clamp(min=1e-3)
        for weights in (inside, around)
    )
    area = masks.mean((1, 2))
    high, wide = masks.amax(2).mean(1), masks.amax(1).mean(1)
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, 1:-1, 0], masks[:, 1:-1, -1]], dim=1).mean(1)
    filled = area / (high * wide).clamp(min=1e-4)
    shape = [iou.float(), stability.float(), area.clamp(min=1e-4).log(), high, wide, filled, rim]
    return torch.cat([within, within - beside, torch.stack(shape, dim=1)], dim=1)


class ClickMasks(NamedTuple):
    """Candidates of a grid of clicks: the part of each mask that its click hit.

    ``logits`` are at the decoder's low resolution and show the frame without padding.
    """

    logits: Float[Tensor, "k h w"]
    iou: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]


@torch.no_grad()
def click_masks(sam: SegmentAnything, features: FrameFeatures, points_per_side: int) -> ClickMasks:
    """All three candidates of every click that hit what they show; on the CPU."""
    clicks = click_grid(points_per_side) * features.geometry.original[::-1]
    prompts = PromptBatch(points=clicks[:, None], labels=np.ones((len(clicks), 1), np.int64))
    (answer,) = sam.decode([features], [prompts], candidates="all")
    rows, columns = features.geometry.low_res_frame
    logits = answer.logits[..., :rows, :columns].flatten(0, 1)
    stability, iou, logits = stability_score(logits).cpu(), answer.iou.flatten().cpu(), logits.cpu()
    scale = np.array([columns, rows]) / np.array(features.geometry.original[::-1])
    places = np.minimum(np.repeat((clicks * scale).astype(int), answer.iou.shape[1], axis=0), [columns - 1, rows - 1])
    parts = np.stack([parts_at(m, [tuple(xy)]) for m, xy in zip(logits.numpy() > 0, places, strict=True)])
    hit = torch.from_numpy(parts.any((1, 2)))
    logits = torch.where(torch.from_numpy(parts), logits, logits.clamp(max=NOTHING))
    return ClickMasks(logits[hit], iou[hit], stability[hit])
