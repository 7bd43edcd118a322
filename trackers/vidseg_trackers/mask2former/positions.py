"""Sine position codes of images and clips (Mask2Former section 3; for videos arXiv 2112.10764, section 2.2)."""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

_TEMPERATURE = 10000.0
_EPS = 1e-6


def _axis(length: int, features: int, device: torch.device) -> Float[Tensor, "n f"]:
    """Sine (even) and cosine (odd features) of the positions 1..n scaled to at most 2 pi."""
    position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    position = position / (position[-1:] + _EPS) * (2 * pi)
    index = torch.arange(features, dtype=torch.float32, device=device)
    angle = position[:, None] / _TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / features)
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1)


def image_positions(height: int, width: int, dim: int, device: torch.device) -> Float[Tensor, "h w dim"]:
    """Half of the features say the row, half the column."""
    y = _axis(height, dim // 2, device)[:, None].expand(-1, width, -1)
    x = _axis(width, dim // 2, device)[None].expand(height, -1, -1)
    return torch.cat([y, x], 2)


def clip_positions(frames: int, height: int, width: int, dim: int, device: torch.device) -> Float[Tensor, "t h w dim"]:
    """The code of the image plus a code of the time, which depends on the length of the clip."""
    time = _axis(frames, dim, device)
    return image_positions(height, width, dim, device)[None] + time[:, None, None]
