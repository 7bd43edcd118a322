"""Swin transformer (Liu et al., arXiv 2103.14030), named like the backbone of the official files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_FOREIGN = -100.0
"""Added to the logits of tokens that a shift has brought into the same window from elsewhere."""


@dataclass(frozen=True, slots=True)
class SwinConfig:
    """A Swin transformer (arXiv 2103.14030): one value per stage, ``window`` in tokens per side."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of res2 to res5."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))


class PatchEmbed(nn.Module):
    """4x4 patches to tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w C"]:
        """Images, zero-padded to multiples of 4 at the right and bottom -> tokens."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias per relative position (section 3.2, eq. 4)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self, x: Float[Tensor, "B N C"], foreign: Bool[Tensor, "W N N"] | None) -> Float[Tensor, "B N C"]:
        """B windows of N tokens; ``foreign`` marks pairs that must not meet, for the W windows of one image."""
        index = relative_index(self.window, x.device)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1).to(x.dtype)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if foreign is not None:
            images = x.shape[0] // foreign.shape[0]
            bias = (bias + _FOREIGN * foreign[:, None].to(x.dtype)).repeat(images, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Per token."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Window attention and MLP; every other block shifts the windows by half."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Float[Tensor, "B h w C"], foreign: Bool[Tensor, "W N N"]) -> Float[Tensor, "B h w C"]:
        """``foreign``: see :func:`foreign_pairs`; used by shifted blocks."""
        batch, height, width, channels = x.shape
        size, shift = self.window, self.shift
        # The padding joins after the norm and is not masked.
        y = F.pad(self.norm1(x), (0, 0, 0, -width % size, 0, -height % size))
        padded = y.shape[1:3]
        if shift:
            y = y.roll((-shift, -shift), (1, 2))
        y = y.unflatten(1, (-1, size)).unflatten(3, (-1, size)).transpose(2, 3)
        grid = y.shape[:3]
        y = self.attn(y.reshape(-1, size * size, channels), foreign if shift else None)
        y = y.view(*grid, size, size, channels).transpose(2, 3).reshape(batch, *padded, channels)
        if shift:
            y = y.roll((shift, shift), (1, 2))
        x = x + y[:, :height, :width]
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours to one token of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B (h+1)//2 (w+1)//2 2*C"]:
        """Odd sizes are zero-padded."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Stage(nn.Module):
    """Blocks at one resolution; all but the last stage also hold the way to the next one."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, last: bool) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(Block(dim, heads, window, (j % 2) * (window // 2)) for j in range(depth))
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """Without the downsampling: the output of a stage is taken before it."""
        foreign = foreign_pairs(x.shape[1], x.shape[2], self.window, x.device)
        for block in self.blocks:
            x = block(x, foreign)
        return x


class Swin(nn.Module):
    """Images to features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim)
        last = len(config.depths) - 1
        self.layers = nn.ModuleList(
            Stage(dim, config.depths[i], config.num_heads[i], config.window, i == last)
            for i, dim in enumerate(config.channels)
        )
        for i, dim in enumerate(config.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(dim))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Normalised images -> [res2, res3, res4, res5], each (B, C, h, w)."""
        tokens = self.patch_embed(x)
        features = []
        for i, module in enumerate(self.layers):
            stage = cast(Stage, module)
            tokens = stage(tokens)
            features.append(self.get_submodule(f"norm{i}")(tokens).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return features


def relative_index(window: int, device: torch.device) -> Int[Tensor, "N N"]:
    """Row of the bias table for every pair of the window's N tokens."""
    steps = torch.arange(window, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None] + window - 1
    dx = x[:, None] - x[None] + window - 1
    return dy * (2 * window - 1) + dx


def foreign_pairs(height: int, width: int, window: int, device: torch.device) -> Bool[Tensor, "W N N"]:
    """For every window after the shift: which pairs of tokens were not neighbours before it (section 3.2)."""
    regions = []
    for length in (height, width):
        padded = length + -length % window
        position = torch.arange(padded, device=device)
        regions.append((position >= padded - window).long() + (position >= padded - window // 2).long())
    region = 3 * regions[0][:, None] + regions[1][None]
    flat = region.unflatten(0, (-1, window)).unflatten(2, (-1, window)).transpose(1, 2).reshape(-1, window**2)
    return flat[:, :, None] != flat[:, None, :]
