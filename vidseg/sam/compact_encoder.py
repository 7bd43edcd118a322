"""The image encoder of the `compact` model: EfficientNet-Lite0 and a small neck.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 and a stem and head of
fixed width. Batch normalisation is folded into the convolutions: the network only ever runs with frozen statistics, so
the folded form is the same function, smaller and faster. The image model and the compact tracker build on this trunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.sam.layers import LayerNorm2d

#: Grey level mean and scale the ImageNet weights were trained with, the same for all three channels.
PIXEL_MEAN = 127.0
PIXEL_STD = 128.0

#: Channels of the features at strides 4, 8, 16 and 32.
TRUNK_CHANNELS = (24, 40, 112, 320)
#: Channels of the feature at stride 2.
HALF_CHANNELS = 16

# One row per group of blocks: (blocks, kernel, stride of the first, expansion, output channels).
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Group indices after which the features of strides 4, 8, 16 and 32 are complete.
_STAGE_ENDS = (1, 2, 4, 6)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" alignment for even inputs: stride 2 looks right and down, not left and up.

    (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # A stride-2 kernel should start at 2i - (kernel - 2) // 2. Padding by (kernel + 1) // 2 puts that window at
        # index i + 1 of the result: dropping the first row and column costs a view instead of a padded input.
        padding = kernel // 2 if stride == 1 else (kernel + 1) // 2
        super().__init__(in_channels, out_channels, kernel, stride, padding, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        if self.training and self.groups > 1:
            # The bfloat16 gradient of a depthwise convolution is several times slower than the float32 one on CPUs.
            with torch.autocast(input.device.type, enabled=False):
                out = super().forward(input.float())
        else:
            out = super().forward(input)
        return out if self.stride[0] == 1 else out[:, :, 1:, 1:]


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation: expand 1x1, depthwise, project 1x1; a shortcut where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.project = nn.Conv2d(width, out_channels, 1)
        self.expands = expansion > 1
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = F.relu6(self.expand(x)) if self.expands else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """The trunk up to stride 32, without the classifier.

    ``stages`` (1 to 4) keeps the network up to stride 4, 8, 16 or 32; ``in_channels`` may exceed 3 for a network that
    also reads masks. The input is ``(rgb - PIXEL_MEAN) / PIXEL_STD``, roughly in [-1, 1].
    """

    def __init__(self, stages: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = SameConv2d(in_channels, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        channels, blocks = 32, list[nn.Module]()
        for index, (count, kernel, stride, expansion, out) in enumerate(_GROUPS):
            for repeat in range(count):
                blocks.append(InvertedResidual(channels, out, kernel, stride if repeat == 0 else 1, expansion))
                channels = out
            if index in _STAGE_ENDS:
                self.stages.append(nn.Sequential(*blocks))
                blocks = []
            if len(self.stages) == stages:
                break

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each returned feature."""
        return TRUNK_CHANNELS[: len(self.stages)]

    def stride2(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> the feature at stride 2, (B, 16, H/2, W/2)."""
        return self.stages[0][0](F.relu6(self.stem(x)))  # type: ignore[index]

    def from_stride2(self, x: Tensor) -> list[Tensor]:
        """From :meth:`stride2` to the features of :meth:`forward`."""
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x) if i else stage[1:](x)  # type: ignore[index]
            features.append(x)
        return features

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> features at strides 4, 8, 16, 32 with 24, 40, 112, 320 channels."""
        return self.from_stride2(self.stride2(x))


class ContextBlock(nn.Module):
    """Residual block with a wide depthwise convolution (ConvNeXt, Liu et al. 2022): (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, kernel: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = SameConv2d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class CompactEncoder(nn.Module):
    """Trunk, a neck that joins all its scales at stride 16, and the early feature for the HQ fusion.

    The neck sees the fine scales too (cut into the 4x4 and 2x2 pixels of a stride-16 cell), because the decoder
    upscales from its output alone. The input must have sides that are multiples of 32.
    """

    #: Channels of the early feature: strides 2 (the four pixels of a stride-4 cell), 4 and 8 side by side.
    early_channels = 4 * HALF_CHANNELS + TRUNK_CHANNELS[0] + TRUNK_CHANNELS[1]

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        c4, c8, c16, c32 = TRUNK_CHANNELS
        self.from4 = nn.Conv2d(c4, out_channels, 4, stride=4)
        self.from8 = nn.Conv2d(c8, out_channels, 2, stride=2)
        self.from16 = nn.Conv2d(c16, out_channels, 1)
        self.from32 = nn.Conv2d(c32, out_channels, 1)
        self.context32 = ContextBlock(out_channels)
        self.context16 = nn.Sequential(ContextBlock(out_channels), ContextBlock(out_channels))
        self.norm = LayerNorm2d(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> embedding (B, D, H/16, W/16), early feature (B, 128, H/4, W/4)."""
        x = x.contiguous(memory_format=torch.channels_last)
        f2 = self.trunk.stride2(x)
        f4, f8, f16, f32 = self.trunk.from_stride2(f2)
        coarse = self.context32(self.from32(f32))
        y = self.from16(f16) + self.from8(f8) + self.from4(f4)
        y = y + F.interpolate(coarse, size=y.shape[-2:], mode="bilinear", align_corners=False)
        coarser = F.interpolate(f8, size=f4.shape[-2:], mode="bilinear", align_corners=False)
        finer = [f2[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        early = torch.cat([*finer, f4, coarser], dim=1)
        return self.norm(self.context16(y)), early
