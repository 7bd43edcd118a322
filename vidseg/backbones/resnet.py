"""ResNets (He et al., 2016) with frozen batch norms, under the names of the two families of checkpoint files.

The blocks of XMem and Cutie have their norms beside their convolutions (``conv1``, ``bn1``), the whole network of
Mask2Former inside them (``conv1.norm``). Both have the stride of a bottleneck in its 3x3 convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.winograd import WinogradConv2d, convolve

_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """A ResNet of bottlenecks; ``width`` is the width of the stem, the outputs have 4, 8, 16 and 32 times as many."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of res2 to res5."""
        return tuple(4 * self.width * 2**i for i in range(len(self.depths)))


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that stays in evaluation mode."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Ignore ``mode``."""
        super().train(False)
        return self


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18)."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = WinogradConv2d(in_dim, dim, 3, stride, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(dim)
        self.conv2 = WinogradConv2d(dim, dim, 3, 1, 1, bias=False)
        self.bn2 = FrozenBatchNorm2d(dim)
        self.downsample = _shortcut(in_dim, dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, dim, h/stride, w/stride)."""
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width, and a shortcut (ResNet-50)."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, dim, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(dim)
        self.conv2 = WinogradConv2d(dim, dim, 3, stride, 1, bias=False)
        self.bn2 = FrozenBatchNorm2d(dim)
        self.conv3 = nn.Conv2d(dim, 4 * dim, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(4 * dim)
        self.downsample = _shortcut(in_dim, 4 * dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, 4*dim, h/stride, w/stride)."""
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


def _shortcut(in_dim: int, out_dim: int, stride: int) -> nn.Sequential | None:
    if in_dim == out_dim and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(in_dim, out_dim, 1, stride, bias=False), FrozenBatchNorm2d(out_dim))


def stage(block: type[BasicBlock] | type[Bottleneck], in_dim: int, dim: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` blocks of a ResNet, the first with the stride."""
    out_dim = dim if block is BasicBlock else 4 * dim
    return nn.Sequential(*(block(in_dim if i == 0 else out_dim, dim, stride if i == 0 else 1) for i in range(depth)))


class NormConstants(nn.Module):
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
        self.norm = NormConstants(channels)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        scale, shift = self.norm.scale_and_shift()
        return convolve(self, input, self.weight * scale[:, None, None, None], shift)


class FoldedBottleneck(nn.Module):
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
                FoldedBottleneck(channels if j == 0 else out, out // 4, 2 if i > 0 and j == 0 else 1)
                for j in range(depth)
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
