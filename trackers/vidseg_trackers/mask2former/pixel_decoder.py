"""The pixel decoder: features of a backbone to three levels of tokens and to mask features at 1/4 (section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.deformable import DeformableAttention, Sizes
from vidseg_trackers.mask2former.positions import image_positions

LEVELS = 3
_GROUPS = 32


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, normalised after each."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(config.dim, config.heads, LEVELS, config.points)
        self.norm1 = nn.LayerNorm(config.dim)
        self.linear1 = nn.Linear(config.dim, config.encoder_ffn)
        self.linear2 = nn.Linear(config.encoder_ffn, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, sizes: Sizes) -> Tensor:
        """Tokens (B, N, C) of all levels."""
        x = self.norm1(x + self.self_attn(x + position, reference, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class EncoderLayers(nn.Module):
    """The stack, under the official name."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))


class Encoder(nn.Module):
    """Deformable transformer encoder over three levels."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.zeros(LEVELS, config.dim))
        self.encoder = EncoderLayers(config)

    def forward(self, maps: Sequence[Float[Tensor, "B C _ _"]]) -> list[Float[Tensor, "B C _ _"]]:
        """The same maps, mixed."""
        device, dim = maps[0].device, maps[0].shape[1]
        sizes = [(m.shape[2], m.shape[3]) for m in maps]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        codes = [image_positions(h, w, dim, device).flatten(0, 1) for h, w in sizes]
        position = torch.cat([code + self.level_embed[i] for i, code in enumerate(codes)])
        reference = torch.cat([_pixel_centres(h, w, device) for h, w in sizes])
        for layer in self.encoder.layers:
            x = layer(x, position, reference, sizes)
        parts = x.split([h * w for h, w in sizes], 1)
        return [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


class ConvGroupNorm(nn.Conv2d):
    """Convolution without bias, then a group norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__(in_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return self.norm(super().forward(input))


class PixelDecoder(nn.Module):
    """Works on single frames; time plays no part."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        channels, dim = config.backbone.channels, config.dim
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, dim, 1), nn.GroupNorm(_GROUPS, dim)) for c in reversed(channels[1:])
        )
        self.transformer = Encoder(config)
        self.adapter_1 = ConvGroupNorm(channels[0], dim, 1)
        self.layer_1 = ConvGroupNorm(dim, dim, 3)
        self.mask_features = nn.Conv2d(dim, dim, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """[res2, res3, res4, res5] -> maps (B, C, h, w) at 1/32, 1/16, 1/8, and mask features (B, C, h, w) at 1/4."""
        res2, *deep = features
        maps = [proj(x) for proj, x in zip(self.input_proj, reversed(deep), strict=True)]
        maps = self.transformer(maps)
        fine = F.interpolate(maps[-1], res2.shape[-2:], mode="bilinear", align_corners=False)
        fine = F.relu(self.layer_1(self.adapter_1(res2) + fine))
        return maps, self.mask_features(fine)


def _pixel_centres(height: int, width: int, device: torch.device) -> Float[Tensor, "n 2"]:
    """(x, y) of all pixels in 0..1, row by row."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], 2).flatten(0, 1)
