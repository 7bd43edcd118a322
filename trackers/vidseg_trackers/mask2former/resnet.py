"""ResNet-50 and -101 with frozen batch norms, named like the backbone of the official files (stride in the 3x3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidseg_trackers.mask2former.config import ResNetConfig

_EPS = 1e-5


class FrozenBatchNorm(nn.Module):
    """The constants of a batch norm that is never updated."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm is ``x * scale + shift`` per channel."""
        scale = self.weight * torch.rsqrt(self.running_var + _EPS)
        return scale, self.bias - self.running_mean * scale


class ConvNorm(nn.Conv2d):
    """Convolution and norm in one: folding the norm into the weights saves a pass over the activations."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.norm = FrozenBatchNorm(channels)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        scale, shift = self.norm.scale_and_shift()
        return self._conv_forward(input, self.weight * scale[:, None, None, None], shift)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual; block 0 of a stage projects the residual."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out = 4 * channels
        self.shortcut = ConvNorm(in_channels, out, 1, stride) if in_channels != out or stride != 1 else None
        self.conv1 = ConvNorm(in_channels, channels, 1)
        self.conv2 = ConvNorm(channels, channels, 3, stride)
        self.conv3 = ConvNorm(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        residual = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x) + residual)


class ResNet(nn.Module):
    """Images to features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": ConvNorm(3, config.width, 7, 2)})
        channels = config.width
        self._stages = [f"res{i}" for i in range(2, 2 + len(config.depths))]
        for i, (name, depth, out) in enumerate(zip(self._stages, config.depths, config.channels, strict=True)):
            blocks = [
                Bottleneck(channels if j == 0 else out, out // 4, 2 if i > 0 and j == 0 else 1) for j in range(depth)
            ]
            self.add_module(name, nn.Sequential(*blocks))
            channels = out

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Normalised images -> [res2, res3, res4, res5]."""
        x = F.max_pool2d(F.relu(self.stem["conv1"](x)), 3, 2, 1)
        features = []
        for name in self._stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features
