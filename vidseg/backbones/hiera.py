"""Hiera, the image encoder of SAM 2: four stages of attention in windows, each half as large and twice as wide.

Hiera (Ryali et al., ICML 2023) with the window schedule of SAM 2: the first block of a stage still uses the window of
the stage before, and it halves the map by pooling its queries. Maps are (B, H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import from_windows, to_windows

_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class HieraConfig:
    """The image encoder: blocks per stage, the width and the heads of the first one (both double with every stage)."""

    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    global_blocks: tuple[int, ...] = (5, 7, 9)
    """Blocks that attend everywhere; the others attend in the windows of their stage."""
    windows: tuple[int, ...] = (8, 4, 14, 7)
    background: tuple[int, int] = (7, 7)
    """Size of the position embedding that is stretched over the image."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of every stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.stages)))


class _PatchEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 7, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/4, W/4, C)."""
        return cast(Tensor, self.proj(x)).permute(0, 2, 3, 1)


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        """Linear, GELU, linear."""
        return cast(Tensor, self.layers[1](F.gelu(self.layers[0](x))))


class _Attention(nn.Module):
    def __init__(self, dim: int, dim_out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Attention inside windows (n, h, w, C) -> (n, h', w', C_out); with pooling h' and w' are half."""
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.pool:
            q = _max_pool(q)
        height, width = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2)).unflatten(1, (height, width))


class _Block(nn.Module):
    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = _Attention(dim, dim_out, heads, pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=_EPS)
        self.mlp = _Mlp(dim_out)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)
        self.widens = dim != dim_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C_out)."""
        y = self.norm1(x)
        if self.widens:  # the shortcut takes the normalised input
            x = self.proj(y)
            x = _max_pool(x) if self.pool else x
        size = (x.shape[1], x.shape[2])
        if self.window:
            y = from_windows(self.attn(to_windows(y, self.window)), *size)
        else:
            y = self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


class Hiera(nn.Module):
    """The trunk of one :class:`HieraConfig`; parameters have the official names."""

    def __init__(self, config: HieraConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = _PatchEmbedding(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *config.background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, config.windows[0], config.windows[0]))
        blocks: list[nn.Module] = []
        self.ends: list[int] = []
        for stage, depth in enumerate(config.stages):
            for place in range(depth):
                first = place == 0 and stage > 0
                number = len(blocks)
                window = config.windows[stage - 1 if first else stage]
                blocks.append(
                    _Block(
                        config.dims[stage - 1 if first else stage],
                        config.dims[stage],
                        config.num_heads * 2**stage,
                        0 if number in config.global_blocks else window,
                        first,
                    )
                )
            self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """The maps after every stage, at strides 4, 8, 16 and 32."""
        x = self.patch_embed(image)
        x = x + self._positions(x.shape[1], x.shape[2]).to(x.dtype)
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.ends:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def _positions(self, height: int, width: int) -> Tensor:
        """The stretched background and the tiled window, (1, h, w, C)."""
        window = self.pos_embed_window.float()
        background = F.interpolate(self.pos_embed.float(), (height, width), mode="bicubic")
        tiles = (1, 1, height // window.shape[-2], width // window.shape[-1])
        return (background + window.tile(tiles)).permute(0, 2, 3, 1)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)
