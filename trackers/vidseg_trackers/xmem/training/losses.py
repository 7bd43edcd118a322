"""What a predicted sequence is compared by: bootstrapped cross-entropy and dice (XMem, section 4.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def bootstrapped_cross_entropy(
    logits: Float[Tensor, "B N1 H W"], labels: Int[Tensor, "B H W"], fraction: float
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the ``fraction`` (0..1] of each image's pixels where it is largest."""
    losses = F.cross_entropy(logits, labels, reduction="none").flatten(1)
    if fraction < 1:
        losses = losses.topk(max(1, int(fraction * losses.shape[1])), 1, sorted=False).values
    return losses.mean()


def dice_loss(probabilities: Float[Tensor, "B N H W"], masks: Float[Tensor, "B N H W"]) -> Float[Tensor, ""]:
    """1 - (2*overlap + 1) / (sum of both + 1), mean over objects."""
    overlap = (probabilities * masks).sum((2, 3))
    total = probabilities.sum((2, 3)) + masks.sum((2, 3))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def sequence_loss(
    logits: list[Float[Tensor, "B N1 H W"]], labels: Int[Tensor, "B T H W"], fraction: float
) -> Float[Tensor, ""]:
    """Mean over the predicted frames (all but the first) of cross-entropy plus dice; logits are aggregated ones."""
    objects = logits[0].shape[1] - 1
    total = logits[0].new_zeros(())
    for t, frame in enumerate(logits, start=1):
        masks = F.one_hot(labels[:, t], objects + 1).permute(0, 3, 1, 2)[:, 1:].float()
        total = total + bootstrapped_cross_entropy(frame, labels[:, t], fraction)
        total = total + dice_loss(torch.softmax(frame, 1)[:, 1:], masks)
    return total / len(logits)
