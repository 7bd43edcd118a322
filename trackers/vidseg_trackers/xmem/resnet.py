"""XMem's official encoders without the last stage: ResNet-50 for keys, ResNet-18 for values (He et al., 2016).

Batch normalisation always uses its stored statistics, also in training, as XMem does.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.modules import ValueEncoder, conv_with_shared


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
        self.conv1 = nn.Conv2d(in_dim, dim, 3, stride, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1, bias=False)
        self.bn2 = FrozenBatchNorm2d(dim)
        self.downsample = _shortcut(in_dim, dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, dim, h/stride, w/stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width, and a shortcut (ResNet-50)."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, dim, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, stride, 1, bias=False)
        self.bn2 = FrozenBatchNorm2d(dim)
        self.conv3 = nn.Conv2d(dim, 4 * dim, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(4 * dim)
        self.downsample = _shortcut(in_dim, 4 * dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, 4*dim, h/stride, w/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_dim: int, out_dim: int, stride: int) -> nn.Sequential | None:
    if in_dim == out_dim and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(in_dim, out_dim, 1, stride, bias=False), FrozenBatchNorm2d(out_dim))


def stage(block: type[BasicBlock] | type[Bottleneck], in_dim: int, dim: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` blocks of a ResNet, the first with the stride."""
    out_dim = dim if block is BasicBlock else 4 * dim
    return nn.Sequential(*(block(in_dim if i == 0 else out_dim, dim, stride if i == 0 else 1) for i in range(depth)))


class ResNetKeyEncoder(nn.Module):
    """ResNet-50 up to 1/16; its first stage is called ``res2`` in the official files."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(64)
        self.res2 = stage(Bottleneck, 64, 64, 3, 1)
        self.layer2 = stage(Bottleneck, 256, 128, 4, 2)
        self.layer3 = stage(Bottleneck, 512, 256, 6, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised RGB (B, 3, H, W) -> f16 (B, 1024, H/16, W/16), f8 (B, 512, ...), f4 (B, 256, ...)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class ResNetValueEncoder(ValueEncoder):
    """ResNet-18 up to 1/16 on five channels; its layers stand directly beside the fuser in the official files."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__(config)
        self.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(64)
        self.layer1 = stage(BasicBlock, 64, 64, 2, 1)
        self.layer2 = stage(BasicBlock, 64, 128, 2, 2)
        self.layer3 = stage(BasicBlock, 128, 256, 2, 2)

    def trunk(self, image: Tensor, masks: Tensor) -> Tensor:
        """See :class:`ValueEncoder`."""
        x = self.bn1(conv_with_shared(self.conv1, image, masks))
        x = F.relu(F.max_pool2d(x, 3, 2, 1))
        return self.layer3(self.layer2(self.layer1(x)))
