"""The neck of SAM 2's image encoder, and sine positions."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.hiera import Hiera, HieraConfig
from vidseg.sam2.config import Sam2Config


class _Lateral(nn.Module):
    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim, 1)


class Neck(nn.Module):
    """A feature pyramid in which only the level at stride 16 gets a signal from above; ``convs`` begin at stride 32."""

    def __init__(self, trunk: HieraConfig, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Lateral(width, dim) for width in reversed(trunk.dims))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at strides 4, 8, 16, 32 -> levels (B, D, h, w) at strides 4, 8, 16."""
        top, *rest = (cast(_Lateral, c).conv(x) for c, x in zip(self.convs, reversed(maps), strict=True))
        rest[0] = rest[0] + F.interpolate(top.float(), scale_factor=2.0, mode="nearest").to(top.dtype)
        return list(reversed(rest))


class ImageEncoder(nn.Module):
    """Trunk and neck."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.trunk = Hiera(config.trunk)
        self.neck = Neck(config.trunk, config.dim)

    def forward(self, image: Float[Tensor, "B 3 S S"]) -> list[Tensor]:
        """Levels (B, D, h, w) at strides 4, 8 and 16."""
        return cast(list[Tensor], self.neck(self.trunk(image)))


def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Float[Tensor, "1 dim h w"]:
    """Sines and cosines of the position as a share of the map, interleaved; the first half of the channels is y."""
    half = dim // 2
    channel = torch.arange(half, device=device, dtype=torch.float32)
    divisor = 10000 ** (2 * torch.floor(channel / 2) / half)

    def axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        angle = (position / (length + 1e-6) * (2 * math.pi))[:, None] / divisor
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1)

    y, x = axis(height), axis(width)
    grid = torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], -1)
    return grid.permute(2, 0, 1)[None]
