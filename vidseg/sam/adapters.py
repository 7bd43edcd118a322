"""Adapters in the blocks of SAM's encoder (HQ-SAM, table 9, after AIM, Yang et al. 2023).

Two per block: one on the result of the attention, one beside the MLP at half weight. The paper leaves open where they
stand; these are AIM's places for images. Its 12.0 MiB of ViT-L are layers 1024 -> 32 -> 1024 without biases in each.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

BESIDE_MLP = 0.5
"""Weight of the adapter beside the MLP (AIM)."""


class Adapter(nn.Module):
    """Down, GELU, up: a bottleneck that gives zero until it has learned something."""

    def __init__(self, dim: int, width: int) -> None:
        """``dim`` -> ``width`` -> ``dim``."""
        super().__init__()
        self.down = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim), to be added to what it adapts."""
        return self.up(F.gelu(self.down(x)))
