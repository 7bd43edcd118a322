"""TinyViT, the image encoder of MobileSAM and Light HQ-SAM: convolutions, then attention in small windows.

TinyViT (Wu et al. 2022), as changed by MobileSAM (Zhang et al. 2023): 1024 input, the last merge keeps the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import from_windows, sam_neck, to_windows


@dataclass(frozen=True, slots=True)
class TinyVitConfig:
    """TinyViT of MobileSAM and Light HQ-SAM: one value per stage. ``num_classes`` is its unused classifier."""

    dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    num_classes: int = 1000


class ConvBN(nn.Module):
    """Convolution without bias and batch normalisation with frozen statistics, computed as one convolution."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        """Padding keeps the size (at stride 1)."""
        super().__init__()
        self.c = nn.Conv2d(dim_in, dim_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply with the running statistics, in training mode too."""
        bn = self.bn
        scale = bn.weight * (cast(Tensor, bn.running_var) + bn.eps).rsqrt()
        bias = bn.bias - cast(Tensor, bn.running_mean) * scale
        weight = (self.c.weight * scale[:, None, None, None]).to(self.c.weight.dtype)
        return F.conv2d(x, weight, bias.to(weight.dtype), self.c.stride, self.c.padding, groups=self.c.groups)


class MBConv(nn.Module):
    """Inverted residual: expand, depthwise, project; GELU after the sum."""

    def __init__(self, dim: int, expand: int = 4) -> None:
        """``dim`` in and out."""
        super().__init__()
        self.conv1 = ConvBN(dim, expand * dim)
        self.conv2 = ConvBN(expand * dim, expand * dim, 3, groups=expand * dim)
        self.conv3 = ConvBN(expand * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW, same shape."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Between stages: new width, half the resolution (unless ``stride`` is 1)."""

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        """``stride`` of the depthwise convolution."""
        super().__init__()
        self.conv1 = ConvBN(dim_in, dim_out)
        self.conv2 = ConvBN(dim_out, dim_out, 3, stride, groups=dim_out)
        self.conv3 = ConvBN(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Attention(nn.Module):
    """Attention in a window with a learned bias per head and absolute offset."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        """``window``: its side."""
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Float[Tensor, "n l l"]:
        """Bias of every pair of positions, from the table as it is now: never cached, so loading cannot miss it."""
        side = torch.arange(self.window, device=self.attention_biases.device)
        distance = (side[:, None] - side).abs()
        # position (y, x), key (v, u): table entry |y - v| * window + |x - u|
        index = distance[:, None, :, None] * self.window + distance[None, :, None, :]
        return self.attention_biases[:, index.reshape(self.window**2, self.window**2)]

    def forward(self, x: Float[Tensor, "b l c"]) -> Float[Tensor, "b l c"]:
        """The norm is inside, so padded zeros pass through it and are attended to."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias().to(q.dtype)[None])
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Norm, linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        """``dim`` -> ``hidden`` -> ``dim``."""
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    """Window attention, a depthwise convolution without shortcut, MLP."""

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        """``window``: side of the attention windows."""
        super().__init__()
        self.attn = Attention(dim, num_heads, window)
        self.mlp = Mlp(dim, 4 * dim)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """NCHW, lying channels-last in memory."""
        h, w = x.shape[-2:]
        x = x.permute(0, 2, 3, 1)
        windows = to_windows(x, self.attn.window)
        attended = self.attn(windows.flatten(1, 2)).view_as(windows)
        x = x + from_windows(attended, h, w)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width and the merge to the next (the last stage has none)."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: PatchMerging | None) -> None:
        """``blocks`` in order."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """NCHW."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class PatchEmbed(nn.Module):
    """Two strided convolutions: a quarter of the resolution."""

    def __init__(self, dim: int) -> None:
        """``dim``: channels after both."""
        super().__init__()
        self.seq = nn.Sequential(ConvBN(3, dim // 2, 3, 2), nn.GELU(), ConvBN(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """NCHW."""
        return self.seq(x)


class TinyViT(nn.Module):
    """The encoder, with the classifier its checkpoints carry and nothing uses."""

    def __init__(self, config: TinyVitConfig, out_channels: int) -> None:
        """``out_channels``: D of the embedding."""
        super().__init__()
        dims = config.dims
        self.patch_embed = PatchEmbed(dims[0])
        stages = []
        for s, dim in enumerate(dims):
            if s == 0:
                blocks: list[nn.Module] = [MBConv(dim) for _ in range(config.depths[s])]
            else:
                blocks = [Block(dim, config.num_heads[s], config.windows[s]) for _ in range(config.depths[s])]
            merge = None
            if s + 1 < len(dims):
                merge = PatchMerging(dim, dims[s + 1], stride=1 if s + 2 == len(dims) else 2)
            stages.append(Stage(blocks, merge))
        self.layers = nn.ModuleList(stages)
        self.norm_head = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], config.num_classes)
        self.neck = sam_neck(dims[-1], out_channels)

    def forward(self, x: Float[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b e g g"]]:
        """Embedding, and the output of the second stage after its merge for the HQ branch."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        early = x
        for s, stage in enumerate(self.layers):
            x = stage(x)
            if s == 1:
                early = x
        return self.neck(x), early
