"""Building blocks of XMem's value encoder and decoder (Cheng & Schwing, ECCV 2022, section 3 and appendix).

Shapes: B images, N objects per image. Image features are (B, C, h, w); object features are (B*N, C, h, w), the objects
of one image in consecutive rows. Module names are those of the official files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidseg.backbones.winograd import WinogradConv2d, convolve
from vidseg_trackers.xmem.config import XMemConfig


def conv_with_shared(conv: nn.Conv2d, shared: Tensor, own: Tensor, relu: bool = False) -> Tensor:
    """``conv(cat([shared, own], dim=1))`` with ``shared`` repeated for every object, but convolved once per image.

    A convolution is linear in its input channels, so the image's part of the sum is the same for all objects.

    Args:
        conv: a convolution over ``shared`` channels first, ``own`` channels after them.
        shared: (B, Cs, h, w), one per image.
        own: (B*N, Co, h, w), one per object.
        relu: of both first.

    Returns:
        (B*N, out, h', w').
    """
    split = shared.shape[1]
    weight = conv.weight
    common = convolve(conv, shared, weight[:, :split], conv.bias, relu)
    out = convolve(conv, own, weight[:, split:], None, relu)
    return add_per_image(out, common)


def add_per_image(own: Tensor, shared: Tensor) -> Tensor:
    """Add (B, C, h, w) image features to the (B*N, C, h, w) features of the image's objects, which are overwritten."""
    if shared.shape[0] in (1, own.shape[0]):  # inference: one image; keeps channels_last without a reshape
        return add_to(own, shared)
    return (own.unflatten(0, (shared.shape[0], -1)) + shared.unsqueeze(1)).flatten(0, 1)


def add_to(fresh: Tensor, other: Tensor) -> Tensor:
    """Their sum, in the place of ``fresh``: a large tensor of its own costs more than the addition."""
    return fresh.add_(other) if fresh.dtype == other.dtype else fresh + other


class GroupResBlock(nn.Module):
    """``conv2(relu(conv1(relu(g)))) + skip(g)`` with 3x3 convolutions; the skip is a convolution when widths differ."""

    def __init__(self, in_dim: int, out_dim: int, skip_size: int = 3) -> None:
        super().__init__()
        skip = WinogradConv2d(in_dim, out_dim, skip_size, padding=skip_size // 2) if in_dim != out_dim else None
        self.downsample = skip
        self.conv1 = WinogradConv2d(in_dim, out_dim, 3, padding=1)
        self.conv2 = WinogradConv2d(out_dim, out_dim, 3, padding=1)

    def forward(self, g: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h, w)."""
        skip = g if self.downsample is None else self.downsample(g)
        return add_to(self.conv2(F.relu_(self.conv1(g, relu=True))), skip)

    def forward_shared(self, shared: Tensor, own: Tensor) -> Tensor:
        """The block on ``cat([shared, own])``: (B, Cs, h, w) and (B*N, Co, h, w) -> (B*N, out, h, w)."""
        if self.downsample is None:  # the skip is the input itself
            repeated = shared.repeat_interleave(own.shape[0] // shared.shape[0], 0)
            return self(torch.cat([repeated, own], 1))
        skip = conv_with_shared(self.downsample, shared, own)
        return add_to(self.conv2(F.relu_(conv_with_shared(self.conv1, shared, own, relu=True))), skip)


class ChannelGate(nn.Module):
    """CBAM's channel attention: one MLP on the average and on the maximum of every channel, added, sigmoid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        reduced = max(4, dim // 16)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(dim, reduced), nn.ReLU(), nn.Linear(reduced, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same, every channel scaled by its gate."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialConv(nn.Module):
    """The 7x7 convolution of the spatial gate (a module of its own only because the official files name it so)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2, h, w) -> (n, 1, h, w)."""
        return self.conv(x)


class SpatialGate(nn.Module):
    """CBAM's spatial attention: maximum and mean over the channels, 7x7 convolution, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = SpatialConv()

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same, every pixel scaled by its gate."""
        maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(maps))


class CBAM(nn.Module):
    """Convolutional block attention: channel gate, then spatial gate."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(dim)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w)."""
        return self.SpatialGate(self.ChannelGate(x))


class FeatureFusionBlock(nn.Module):
    """Fuse the shared image features with the features of every object."""

    def __init__(self, shared_dim: int, own_dim: int, mid_dim: int, out_dim: int) -> None:
        super().__init__()
        self.block1 = GroupResBlock(shared_dim + own_dim, mid_dim)
        self.attention = CBAM(mid_dim)
        self.block2 = GroupResBlock(mid_dim, out_dim)

    def forward(self, shared: Tensor, own: Tensor) -> Tensor:
        """(B, Cs, h, w) and (B*N, Co, h, w) -> (B*N, out, h, w)."""
        g = self.block1.forward_shared(shared, own)
        return self.block2(g + self.attention(g))


def gated_update(gates: Tensor, hidden: Tensor) -> Tensor:
    """New sensory memory from 3*C gate channels (forget, update, new) and the old one: ``f*h*(1-u) + u*n``.

    Computed in the dtype of ``hidden`` (float32), because the memory is carried through the whole video.
    """
    forget, update, new = gates.to(hidden.dtype).chunk(3, 1)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * hidden * (1 - update) + update * torch.tanh(new)


class HiddenReinforcer(nn.Module):
    """Deep update of the sensory memory, from the value of a memory frame."""

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = WinogradConv2d(value_dim + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        """(B*N, Cv, h, w), (B*N, Ch, h, w) -> new hidden (B*N, Ch, h, w)."""
        return gated_update(self.transform(torch.cat([value, hidden.to(value.dtype)], 1)), hidden)


class HiddenUpdater(nn.Module):
    """Shallow update of the sensory memory, from the decoder's features at three scales."""

    def __init__(self, g16_dim: int, g8_dim: int, g4_dim: int, mid_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(g16_dim, mid_dim, 1)
        self.g8_conv = nn.Conv2d(g8_dim, mid_dim, 1)
        self.g4_conv = nn.Conv2d(g4_dim + 1, mid_dim, 1)
        self.transform = WinogradConv2d(mid_dim + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
        """Features at 1/16, 1/8, 1/4, logits (B*N, 1, 4h, 4w) and hidden (B*N, Ch, h, w) -> new hidden."""
        # averaging before the concatenation is the same and touches 16 times fewer numbers
        small = torch.cat([F.avg_pool2d(g4, 4), F.avg_pool2d(logits, 4)], 1)
        mid = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2)) + self.g4_conv(small)
        return gated_update(self.transform(torch.cat([mid, hidden.to(mid.dtype)], 1)), hidden)


class UpsampleBlock(nn.Module):
    """Twice the resolution: bilinear upsampling plus a convolved image feature, then a residual block."""

    def __init__(self, skip_dim: int, up_dim: int, out_dim: int) -> None:
        super().__init__()
        self.skip_conv = WinogradConv2d(skip_dim, up_dim, 3, padding=1)
        self.out_conv = GroupResBlock(up_dim, out_dim)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        """Image feature (B, Cs, 2h, 2w) and object features (B*N, C, h, w) -> (B*N, out, 2h, 2w)."""
        up = F.interpolate(g, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out_conv(add_per_image(up, self.skip_conv(skip)))


class ValueEncoder(nn.Module):
    """Image, object masks and sensory memory -> the value that is stored, one per object.

    Subclasses give ``trunk(image, masks)``: normalised RGB (B, 3, H, W) and masks (B*N, 2, H, W) = [this object, sum of
    the others] -> features (B*N, mask_dim, h, w).
    """

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        self.fuser = FeatureFusionBlock(config.f16_dim, config.mask_dim, config.fuser_dim, config.value_dim)
        self.hidden_reinforce = HiddenReinforcer(config.value_dim, config.hidden_dim) if config.hidden_dim else None

    def trunk(self, image: Tensor, masks: Tensor) -> Tensor:
        """Normalised RGB (B, 3, H, W) and masks (B*N, 2, H, W) -> features (B*N, mask_dim, h, w)."""
        raise NotImplementedError

    def forward(
        self, image: Tensor, f16: Tensor, hidden: Tensor | None, masks: Tensor, deep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Value (B*N, Cv, h, w) and, when ``deep``, the updated sensory memory (else the given one)."""
        value = self.fuser(f16, self.trunk(image, masks))
        if deep and self.hidden_reinforce is not None and hidden is not None:
            hidden = self.hidden_reinforce(value, hidden)
        return value, hidden
