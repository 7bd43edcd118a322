"""Mask losses on sampled points (PointRend; Mask2Former), as HQ-SAM uses them: BCE + Dice, weight 1 each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of ``maps`` (N, C, H, W) at ``points`` (N, P, 2), (x, y) in [0, 1] of the whole map -> (N, C, P).

    Pixel centres lie at (i + 0.5) / size; outside the map values are zero, so that a point on the border is half zero.
    """
    grid = points.to(maps.dtype).unsqueeze(1) * 2 - 1
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(2)


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    count: int,
    generator: torch.Generator,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> Tensor:
    """Points in [0, 1]^2 where the sign of ``logits`` (N, 1, H, W) is least certain -> (N, count, 2).

    Of ``oversample * count`` uniform points the ``importance * count`` of smallest absolute logit are kept; the rest is
    uniform.
    """
    n = logits.shape[0]
    device = generator.device
    candidates = torch.rand(n, int(count * oversample), 2, generator=generator, device=device).to(logits.device)
    kept = int(count * importance)
    certainty = sample_points(logits, candidates)[:, 0].abs()
    index = certainty.topk(kept, dim=1, largest=False, sorted=False).indices
    chosen = candidates.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))
    fresh = torch.rand(n, count - kept, 2, generator=generator, device=device).to(logits.device)
    return torch.cat([chosen, fresh], dim=1)


def bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy of ``logits`` and ``targets`` in [0, 1], both (..., P), mean over the points -> (...).

    ``weights`` (..., P) in [0, 1] say how much a point counts.
    """
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return each.mean(-1) if weights is None else (each * weights).sum(-1) / weights.sum(-1).clamp(min=1)


def dice(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) over the points of (..., P) -> (...); defined for empty targets.

    ``weights`` (..., P) in [0, 1] say how much a point counts.
    """
    probability = logits.sigmoid()
    if weights is not None:
        probability, targets = probability * weights, targets * weights
    overlap = (probability * targets).sum(-1)
    return 1 - (2 * overlap + 1) / (probability.sum(-1) + targets.sum(-1) + 1)


def soft_boundary_band(mask: Tensor, width: int) -> Tensor:
    """1 within ``width`` pixels of the outline of a binary ``mask`` (N, 1, H, W), else 0.

    The border of the image is no outline.
    """
    kernel = 2 * width + 1
    wide = F.max_pool2d(mask, kernel, stride=1, padding=width)
    narrow = -F.max_pool2d(-mask, kernel, stride=1, padding=width)
    return wide - narrow
