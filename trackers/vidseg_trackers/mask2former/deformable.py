"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, eq. 3) in plain torch, without a custom operator.

Bilinear sampling is a weighted sum of four rows of the value table, and the attention is a weighted sum of samples: both
together are one weighted bag of rows, which ``embedding_bag`` sums without ever holding the samples.
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
        return self.output_proj(sample(table, places, weights, sizes))


def sample(
    table: Float[Tensor, "B S H D"],
    places: Float[Tensor, "B N H L P 2"],
    weights: Float[Tensor, "B N H L P"],
    sizes: Sizes,
) -> Float[Tensor, "B N H*D"]:
    """Weighted sums of bilinear samples; outside a level there are zeros.

    ``places`` are (x, y) in pixels with centres at whole numbers; ``table`` holds the S pixels of all L levels.
    """
    batch, rows, heads, dim = table.shape
    device = table.device
    height = torch.tensor([h for h, _ in sizes], device=device)[:, None]
    width = torch.tensor([w for _, w in sizes], device=device)[:, None]
    area = height * width
    start = area.cumsum(0) - area
    floor = places.floor()
    (fx, fy), (x0, y0) = (places - floor).unbind(-1), floor.long().unbind(-1)
    base = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1) * rows + start
    head = torch.arange(heads, device=device).view(-1, 1, 1)
    index, weight = [], []
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            x, y = x0 + dx, y0 + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            row = base + y.clamp(min=0).minimum(height - 1) * width + x.clamp(min=0).minimum(width - 1)
            index.append(row * heads + head)
            weight.append(weights * wx * wy * inside)
    bags = batch * places.shape[1] * heads
    out = F.embedding_bag(
        torch.stack(index, -1).view(bags, -1),
        table.reshape(-1, dim),
        mode="sum",
        per_sample_weights=torch.stack(weight, -1).view(bags, -1),
    )
    return out.view(batch, -1, heads * dim)
