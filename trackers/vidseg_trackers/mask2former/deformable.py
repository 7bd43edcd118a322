"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, eq. 3) in plain torch, no custom operator.

Bilinear sampling is a weighted sum of four rows of the value table, and the attention is a weighted sum of samples:
both together are one weighted bag of rows, which ``embedding_bag`` sums without ever holding the samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Sizes = Sequence[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Every token looks at a few learned places around it, on every level."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(
        self,
        query: Float[Tensor, "B N C"],
        reference: Float[Tensor, "N 2"],
        value: Float[Tensor, "B N C"],
        sizes: Sizes,
    ) -> Float[Tensor, "B N C"]:
        """Attend from N tokens to the N tokens of all levels.

        Args:
            query: tokens with their positions.
            reference: (x, y) of every token in 0..1, the same on all levels.
            value: tokens, level after level, row by row.
            sizes: (height, width) of the levels.
        """
        table = self.value_proj(value).unflatten(-1, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        wh = torch.tensor([(w, h) for h, w in sizes], dtype=offsets.dtype, device=offsets.device)
        # In pixels of the level; grid_sample without aligned corners has its first pixel centre at 0.5.
        places = reference[None, :, None, None, None] * wh[:, None] + offsets - 0.5
        return self.output_proj(sample_levels(table, places, weights, sizes))


def sample_levels(
    table: Float[Tensor, "B S H D"],
    places: Float[Tensor, "B N H L P 2"],
    weights: Float[Tensor, "B N H L P"],
    sizes: Sizes,
) -> Float[Tensor, "B N H*D"]:
    """Weighted sums of bilinear samples; outside a level there are zeros.

    ``places`` are (x, y) in pixels with centres at whole numbers; ``table`` holds the S pixels of all L levels.
    """
    batch, _, heads, dim = table.shape
    device = table.device
    # A frame of zeros around every level makes "outside" an ordinary row.
    levels = [
        part.unflatten(1, size) for part, size in zip(table.split([h * w for h, w in sizes], 1), sizes, strict=True)
    ]
    rows = torch.cat([F.pad(level, (0, 0, 0, 0, 1, 1, 1, 1)).flatten(1, 2) for level in levels], 1)
    limit = torch.tensor([(w, h) for h, w in sizes], dtype=places.dtype, device=device)[:, None]
    places = places.clamp(min=-1).minimum(limit)
    corner = places.floor().minimum(limit - 1)
    fraction = places - corner
    x0, y0 = corner.int().unbind(-1)
    stride = torch.tensor([w + 2 for _, w in sizes], dtype=torch.int32, device=device)[:, None]
    area = torch.tensor([(h + 2) * (w + 2) for h, w in sizes], dtype=torch.int32, device=device)
    start = (area.cumsum(0, dtype=torch.int32) - area)[:, None] + stride + 1
    image = torch.arange(batch, dtype=torch.int32, device=device).view(-1, 1, 1, 1, 1) * rows.shape[1]
    head = torch.arange(heads, dtype=torch.int32, device=device).view(-1, 1, 1)
    first = (image + start + y0 * stride + x0) * heads + head
    one = torch.ones_like(stride)
    steps = torch.stack([0 * one, one, stride, stride + 1], -1) * heads
    x, y = fraction.unbind(-1)
    lower = weights * y
    upper = weights - lower
    right_lower, right_upper = lower * x, upper * x
    bags = batch * places.shape[1] * heads
    out = F.embedding_bag(
        (first[..., None] + steps).view(bags, -1),
        rows.reshape(-1, dim),
        mode="sum",
        per_sample_weights=torch.stack([upper - right_upper, right_upper, lower - right_lower, right_lower], -1).view(
            bags, -1
        ),
    )
    return out.view(batch, -1, heads * dim)
