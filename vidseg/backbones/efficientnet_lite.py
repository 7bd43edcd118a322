"""EfficientNet-Lite0, the trunk of the compact image model and of the compact trackers.

EfficientNet-Lite is EfficientNet (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 and a stem and head of
fixed width. Batch normalisation is folded into the convolutions: the network only ever runs with frozen statistics, so
the folded form is the same function, smaller and faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
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
        # in place: on a CPU, a large tensor of its own costs several times what the operation does
        y = F.relu6(self.expand(x), inplace=True) if self.expands else x
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return y.add_(x) if self.shortcut else y


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
        return self.stages[0][0](F.relu6(self.stem(x), inplace=True))  # type: ignore[index]

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
