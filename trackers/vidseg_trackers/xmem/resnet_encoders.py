"""XMem's official encoders without the last stage: ResNet-50 for keys, ResNet-18 for values (He et al., 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vidseg.backbones.resnet import BasicBlock, Bottleneck, FrozenBatchNorm2d, stage
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.modules import ValueEncoder, conv_with_shared


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
        x = F.max_pool2d(self.bn1(self.conv1(image)).relu_(), 3, 2, 1)
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
