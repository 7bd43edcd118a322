"""Weights, frames and masks of the XMem test networks: a rule of the tensor's name and a seed, no files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

from vidseg.types import Frame
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.modules import ValueEncoder
from vidseg_trackers.xmem.network import XMem

TOY = XMemConfig(
    key_dim=8,
    value_dim=8,
    hidden_dim=4,
    f16_dim=16,
    f8_dim=8,
    f4_dim=8,
    mask_dim=8,
    fuser_dim=8,
    g16_dim=8,
    g8_dim=8,
    g4_dim=8,
    sensory_dim=8,
    size=64,
)

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]


def rule_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The value of a float tensor from its official key and shape alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    r = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        r = 1 + 0.2 * np.tanh(r)
    elif key.endswith("running_mean"):
        r = 0.1 * r
    elif len(shape) == 1:
        r = 0.6 + 0.1 * r if key.endswith("weight") else 0.1 * r
    else:
        r = r * math.sqrt(1.6 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(r, np.float32))


@cache
def rule_network(config: XMemConfig = XMemConfig()) -> XMem:  # noqa: B008
    """A network whose affinities reach from flat to sharp and whose masks move."""
    network = XMem(config)
    scale = {"key_proj.key_proj.weight": 6.0, "decoder.pred.weight": 2.0}
    state = {
        key: rule_tensor(key, tuple(value.shape)) * scale.get(key, 1.0) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def rule_frames(count: int, height: int, width: int, seed: int = 7) -> list[np.ndarray]:
    """Moving waves: float32 RGB (3, H, W) in 0..1."""
    rng = np.random.RandomState(seed)
    k = rng.uniform(0.03, 0.25, (3, 6, 2))
    p = rng.uniform(0, 6.283, (3, 6))
    s = rng.uniform(-0.25, 0.25, 6)
    y, x = np.mgrid[:height, :width]
    grid = k[..., 0, None, None] * y + k[..., 1, None, None] * x + p[..., None, None]
    return [
        np.clip(0.5 + 0.08 * np.sin(grid + (s * t)[:, None, None]).sum(1), 0, 1).astype(np.float32)
        for t in range(count)
    ]


def normalised(frame: np.ndarray) -> torch.Tensor:
    """(3, H, W) in 0..1 -> (1, 3, H, W) as the network wants it, not padded."""
    return torch.from_numpy((frame - _MEAN) / _STD)[None]


def rectangles(height: int, width: int, boxes: Mapping[str, Sequence[int]]) -> dict[int, np.ndarray]:
    """Bool masks of rectangles (y0, y1, x0, x1); later labels overwrite earlier ones."""
    labels = np.zeros((height, width), np.int64)
    for label, (y0, y1, x0, x1) in boxes.items():
        labels[y0:y1, x0:x1] = int(label)
    return {int(label): labels == int(label) for label in boxes}


class _Keys(nn.Module):
    """Three strided convolutions instead of a ResNet."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        widths = (config.f4_dim, config.f8_dim, config.f16_dim)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, k, k) for a, b, k in zip((3, *widths), widths, (4, 2, 2), strict=False)
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        f4 = self.stages[0](image).relu()
        f8 = self.stages[1](f4).relu()
        return self.stages[2](f8), f8, f4


class _Values(ValueEncoder):
    def __init__(self, config: XMemConfig) -> None:
        super().__init__(config)
        self.conv = nn.Conv2d(5, config.mask_dim, 16, 16)

    def trunk(self, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([image.expand(len(masks), -1, -1, -1), masks], 1)).relu()


@cache
def toy_network() -> XMem:
    """A network of toy width: every frame takes about a millisecond."""
    network = XMem(TOY)
    network.key_encoder, network.value_encoder = _Keys(TOY), _Values(TOY)
    for key, value in network.state_dict().items():
        value.copy_(rule_tensor(key, tuple(value.shape)))
    return network.eval().requires_grad_(False)


def toy_video(count: int, height: int = 64, width: int = 80) -> list[Frame]:
    """Noise that drifts, uint8."""
    rng = np.random.default_rng(3)
    strip = rng.integers(0, 255, (height, width + count, 3), np.uint8)
    return [Frame(t, t, t / 25, np.ascontiguousarray(strip[:, t : t + width])) for t in range(count)]
