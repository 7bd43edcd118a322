"""The small encoders of the embedded tracker: EfficientNet-Lite0 for keys, a few dense convolutions for values.

Both read images normalised with ImageNet's mean and std, like the official ones. Module layout, not weights: training
loads the ImageNet weights of the trunk (see ``training/model.py``).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidseg.backbones.efficientnet_lite import PIXEL_MEAN, PIXEL_STD, TRUNK_CHANNELS, EfficientNetLite0
from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.errors import WeightsError
from vidseg_trackers.xmem.config import XMemConfig


class CompactKeyEncoder(nn.Module):
    """EfficientNet-Lite0; f16 is its stride-16 feature and, in the remaining channels, a projection of stride 32."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        s4, s8, s16, s32 = TRUNK_CHANNELS
        if (config.f4_dim, config.f8_dim) != (s4, s8) or config.f16_dim <= s16:
            raise WeightsError(
                f"compact XMem with f4/f8/f16 = {config.f4_dim}/{config.f8_dim}/{config.f16_dim}: "
                f"the trunk gives {s4}/{s8}, and f16 must exceed {s16}"
            )
        self.scale: Tensor
        self.shift: Tensor
        self.trunk = EfficientNetLite0(stages=4)
        self.reduce = nn.Conv2d(s32, config.f16_dim - s16, 1)
        std, mean = torch.tensor(IMAGENET_STD), torch.tensor(IMAGENET_MEAN)
        self.register_buffer("scale", (std * 255 / PIXEL_STD)[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean * 255 - PIXEL_MEAN) / PIXEL_STD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) with ImageNet's normalisation -> f16, f8, f4."""
        s4, s8, s16, s32 = self.trunk(image * self.scale + self.shift)
        deep = F.interpolate(self.reduce(s32), size=s16.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([s16, deep], 1), s8, s4


class CompactValueEncoder(nn.Module):
    """Image and masks to 1/16 by four strided convolutions and one residual block.

    Dense convolutions on purpose: at these widths they cost less time than depthwise ones and need no pre-training;
    what the object looks like comes from f16 in the fuser behind this trunk.
    """

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        widths = (5, 24, 48, 64, config.mask_dim)
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.conv1 = nn.Conv2d(config.mask_dim, config.mask_dim, 3, padding=1)
        self.conv2 = nn.Conv2d(config.mask_dim, config.mask_dim, 3, padding=1)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Image (B, 3, H, W), masks (B*N, 2, H, W) = [object, others] -> (B*N, mask_dim, H/16, W/16)."""
        image = image.repeat_interleave(masks.shape[0] // image.shape[0], 0)
        x = torch.cat([image, masks], 1)
        for conv in self.down:
            x = F.relu(conv(x))
        return x + self.conv2(F.relu(self.conv1(x)))
