"""Low-rank adaptation of the encoder's attention (LoRA, Hu et al. 2022; HQ-SAM, table 9).

As in the paper of LoRA on the projections to queries and values, in every block: W x becomes W x + U D x, with D of
``rank`` rows and U, which begins at zero. With rank 4 these are 1.5 MiB for ViT-L, the number of table 9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidseg.errors import UsageError
from vidseg.sam.image_encoder import Attention
from vidseg.sam.model import Sam

_ADAPTED = ("q", "v")
_THIRDS = {"q": 0, "v": 2}  # of the rows of the projection to queries, keys and values


class LowRank(nn.Module):
    """U D x, zero at first."""

    def __init__(self, dim: int, rank: int) -> None:
        """``dim`` -> ``rank`` -> ``dim``."""
        super().__init__()
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.up(self.down(x))


class LoraQkv(nn.Linear):
    """The projection to queries, keys and values, with additions to queries and values."""

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        """Takes over the parameters of ``plain``, so that their names and values stay."""
        super().__init__(plain.in_features, plain.out_features, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.lora_q, self.lora_v = (LowRank(plain.in_features, rank) for _ in _ADAPTED)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., 3 dim)."""
        q, k, v = super().forward(x).chunk(3, dim=-1)
        return torch.cat([q + self.lora_q(x), k, v + self.lora_v(x)], dim=-1)


def add_lora(sam: Sam, rank: int) -> None:
    """Give every attention of the image encoder its additions, in place.

    Raises:
        UsageError: an encoder that is no ViT, or a rank that it cannot have.
    """
    attentions = [module for module in sam.image_encoder.modules() if isinstance(module, Attention)]
    if not attentions:
        raise UsageError(f"lora: made for the attention of a ViT, which the encoder '{sam.config.encoder}' is not")
    dim = attentions[0].qkv.in_features
    if not 1 <= rank <= dim:
        raise UsageError(f"lora: rank {rank}: expected 1 to {dim}, the width of the encoder")
    for attention in attentions:
        attention.qkv = LoraQkv(attention.qkv, rank)


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights without additions: U D is added to the rows of queries and values of each projection."""
    merged = {name: value for name, value in state.items() if ".lora_" not in name}
    for name, down in state.items():
        found = re.fullmatch(r"(.*)\.lora_([qv])\.down\.weight", name)
        if found is None:
            continue
        projection, part = found[1], found[2]
        change = state[f"{projection}.lora_{part}.up.weight"] @ down
        rows = torch.arange(len(change)) + _THIRDS[part] * len(change)
        merged[f"{projection}.weight"] = merged[f"{projection}.weight"].index_add(0, rows, change)
    return merged
