"""How much a mask looks like a thing, not like a wall, a road or a part: what the encoder saw inside it and around it.

SAM's predicted quality says how good a mask is, not whether anybody would call it an object: roads and skies have
excellent masks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

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
        """Logits for K masks, float32 on the device of the weights; see :func:`describe`."""
        embedding, logits, iou, stability = (t.to(self.weight.device) for t in (embedding, logits, iou, stability))
        described = describe(embedding, logits, iou, stability)
        return F.linear(described, self.weight.float(), self.bias.float())[:, 0]


def describe(
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
