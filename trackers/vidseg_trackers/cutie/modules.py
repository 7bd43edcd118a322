"""Building blocks of Cutie that XMem does not have (facts of the published network).

Shapes as in :mod:`vidseg_trackers.xmem.modules`: image features (B, C, h, w), object features (B*N, C, h, w). Module
names are those of the official files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidseg.backbones.winograd import WinogradConv2d
from vidseg_trackers.xmem.modules import add_per_image

PE_SCALE = 32.0
PE_TEMPERATURE = 128.0


class CAResBlock(nn.Module):
    """Residual block with channel attention: a 1D convolution over the channels' averages gates them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = WinogradConv2d(dim, dim, 3, padding=1)
        self.conv2 = WinogradConv2d(dim, dim, 3, padding=1)
        width = int((abs(math.log2(dim)) + 1) // 2)
        width += 1 - width % 2
        self.conv = nn.Conv1d(1, 1, width, padding=(width - 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w)."""
        y = self.conv2(self.conv1(x, relu=True), relu=True)
        gate = torch.sigmoid(self.conv(y.mean((2, 3))[:, None]))[:, 0, :, None, None]
        return torch.addcmul(x, y, gate)


class Distributor(nn.Module):
    """Adds the image's features to those of every object, each through a 1x1 convolution."""

    def __init__(self, shared_dim: int, own_dim: int, out_dim: int) -> None:
        super().__init__()
        self.x_transform = nn.Conv2d(shared_dim, out_dim, 1)
        self.g_transform = nn.Conv2d(own_dim, out_dim, 1)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """(B, Cs, h, w), (B*N, Co, h, w) -> (B*N, out, h, w)."""
        return add_per_image(self.g_transform(own), self.x_transform(shared))


class FusionBlock(nn.Module):
    """Fuses the pixel feature with the features of every object."""

    def __init__(self, shared_dim: int, own_dim: int, out_dim: int) -> None:
        super().__init__()
        self.distributor = Distributor(shared_dim, own_dim, out_dim)
        self.block1 = CAResBlock(out_dim)
        self.block2 = CAResBlock(out_dim)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """(B, Cs, h, w), (B*N, Co, h, w) -> (B*N, out, h, w)."""
        return self.block2(self.block1(self.distributor(shared, own)))


class PositionalEncoding(nn.Module):
    """Sines and cosines of the position as a share of the image: first half of the channels x, second half y."""

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2  # channels per axis
        self.register_buffer("inv_freq", inverse_frequencies(half))

    def forward(self, height: int, width: int) -> Float[Tensor, "h w C"]:
        """The encoding of a grid, float32."""
        y, x = (self._axis(length) for length in (height, width))
        return torch.cat([x[None].expand(height, -1, -1), y[:, None].expand(-1, width, -1)], -1)

    def _axis(self, length: int) -> Float[Tensor, "n c"]:
        position = torch.arange(length, device=self.inv_freq.device, dtype=torch.float32)
        angles = (position / (length - 1 + 1e-6) * PE_SCALE)[:, None] * self.inv_freq.float()
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def inverse_frequencies(half: int) -> Float[Tensor, " f"]:
    """Of the positional encoding, for ``half`` channels per axis, on the CPU; a file without them loses nothing."""
    return 1 / PE_TEMPERATURE ** (torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half)


class Attention(nn.Module):
    """Multi-head attention with one packed projection (the parameters of ``nn.MultiheadAttention``)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self,
        query: Float[Tensor, "n q C"],
        key: Float[Tensor, "n k C"],
        value: Float[Tensor, "n k C"],
        attend: Bool[Tensor, "n q k"] | None = None,
    ) -> Float[Tensor, "n q C"]:
        """``attend`` says which keys each query may see; the same for all heads."""
        projected = (
            F.linear(x, w, b)
            for x, w, b in zip(
                (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
            )
        )
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        mask = None if attend is None else attend[:, None]
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
