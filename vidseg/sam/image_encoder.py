"""The image encoders of Segment Anything and of the compact model.

Segment Anything: a ViT with windowed and global attention and decomposed relative positions (Kirillov et al. 2023,
appendix A "Image encoder", after ViTDet, Li et al. 2022). Compact: EfficientNet-Lite0 and a neck of ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.efficientnet_lite import HALF_CHANNELS, TRUNK_CHANNELS, EfficientNetLite0, SameConv2d
from vidseg.backbones.layers import LayerNorm2d, from_windows, sam_neck, to_windows
from vidseg.sam.adapters import BESIDE_MLP, Adapter
from vidseg.sam.config import STRIDE, SamConfig

EPS = 1e-6
BIAS_ELEMENTS = 2**24
"""Attention logits of this many (query, key) pairs have their bias in memory at a time (64 MiB in float32)."""
BLOCK = 2**20
"""Attention logits of this many (query, key) pairs are computed at a time where they are in memory (4 MiB)."""


def relative_table(table: Float[Tensor, "t d"], length: int) -> Float[Tensor, "i k d"]:
    """Relative position embeddings for ``length`` queries and keys: entry (i, k) is row i - k + length - 1."""
    if table.shape[0] != 2 * length - 1:
        table = F.interpolate(table.T[None], 2 * length - 1, mode="linear")[0].T
    index = torch.arange(length, device=table.device)
    return table[index[:, None] - index + (length - 1)]


def attend_folded(
    q: Float[Tensor, "b n l d"],
    k: Float[Tensor, "b n l d"],
    v: Float[Tensor, "b n l d"],
    row_bias: Float[Tensor, "b n l h"],
    column_bias: Float[Tensor, "b n l w"],
) -> Float[Tensor, "b n l d"]:
    """Attention with logits s q.k + row_bias[key row] + column_bias[key column], without a bias matrix.

    The biases are appended to the queries and one-hot codes of row and column to the keys, so that a plain (flash)
    attention computes the sum. Keys lie row by row.
    """
    d, h, w = q.shape[-1], row_bias.shape[-1], column_bias.shape[-1]
    rows = torch.eye(h, dtype=k.dtype, device=k.device).repeat_interleave(w, 0)
    columns = torch.eye(w, dtype=k.dtype, device=k.device).repeat(h, 1)
    codes = torch.cat([rows, columns], dim=1).expand(*k.shape[:2], -1, -1)
    q = torch.cat([q * d**-0.5, row_bias.to(q.dtype), column_bias.to(q.dtype)], dim=-1)
    k = torch.cat([k, codes], dim=-1)
    return F.scaled_dot_product_attention(q, k, F.pad(v, (0, h + w)), scale=1.0)[..., :d]


def attend_biased(q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """The same with the bias of some queries at a time in memory: on CPUs faster than longer vectors."""
    traced = torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()  # its many small steps one by one
    if q.dtype == torch.float32 and not q.requires_grad and not traced:
        return attend_in_blocks(q, k, v, row_bias, column_bias)
    b, n, length, _ = q.shape
    step = max(1, BIAS_ELEMENTS // (b * n * length))
    parts = []
    for start in range(0, length, step):
        here = slice(start, start + step)
        bias = (row_bias[:, :, here, :, None] + column_bias[:, :, here, None, :]).flatten(-2)
        parts.append(F.scaled_dot_product_attention(q[:, :, here], k, v, attn_mask=bias.to(q.dtype)))
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """The same in float32 without gradients: biases are added to the logits, in memory that all blocks use in turn.

    Torch's fused kernel takes as long for a bias, which has to be made first, as for the products.
    """
    shape, (length, d) = v.shape, q.shape[2:]
    q, k, v = (q * d**-0.5).flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    row_bias, column_bias = row_bias.flatten(0, 1)[..., None], column_bias.flatten(0, 1)[..., None, :]
    grid = row_bias.shape[2], column_bias.shape[3]
    maps = min(len(q), max(1, BLOCK // length**2))
    rows = min(length, max(1, BLOCK // length))
    logits_room, weights_room = (q.new_empty(maps * rows * length) for _ in range(2))
    out = q.new_empty(v.shape)
    for some in (slice(i, i + maps) for i in range(0, len(q), maps)):
        for here in (slice(i, i + rows) for i in range(0, length, rows)):
            part = q[some, here]
            size = (*part.shape[:2], length)
            logits, weights = (room[: math.prod(size)].view(size) for room in (logits_room, weights_room))
            torch.bmm(part, k[some], out=logits)
            logits.view(*size[:2], *grid).add_(row_bias[some, here]).add_(column_bias[some, here])
            torch.bmm(torch.softmax(logits, -1, out=weights), v[some], out=out[some, here])
    return out.view(shape)


class Attention(nn.Module):
    """Multi-head self-attention over a (B, H, W, C) map with decomposed relative position."""

    def __init__(self, dim: int, num_heads: int, size: int) -> None:
        """``size``: side of the map the relative position tables are made for."""
        super().__init__()
        self.num_heads = num_heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """Attend among all positions of each map; the relative terms use the query before scaling."""
        b, h, w, _ = x.shape
        qkv = self.qkv(x).reshape(b, h * w, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (h, w))
        row_bias = torch.einsum("bnijd,ikd->bnijk", grid, relative_table(self.rel_pos_h, h).to(q.dtype)).flatten(2, 3)
        column_bias = torch.einsum("bnijd,jkd->bnijk", grid, relative_table(self.rel_pos_w, w).to(q.dtype))
        attend = attend_biased if x.device.type == "cpu" else attend_folded
        out = attend(q, k, v, row_bias, column_bias.flatten(2, 3))
        return self.proj(out.transpose(1, 2).reshape(b, h, w, -1))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        """``dim`` -> ``hidden`` -> ``dim``."""
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; ``window`` 0 attends everywhere."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, window: int, grid: int, adapter: int = 0) -> None:
        """``grid``: side of the whole map. ``adapter``: width of its adapters, 0 for none."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.attn_adapter = Adapter(dim, adapter) if adapter else None
        self.mlp_adapter = Adapter(dim, adapter) if adapter else None
        self.window = window

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """Windows are padded after the norm, so padded tokens are zero; they are attended to like any other."""
        h, w = x.shape[1:3]
        y = self.norm1(x)
        if self.window:
            y = from_windows(self.attn(to_windows(y, self.window)), h, w)
        else:
            y = self.attn(y)
        if self.attn_adapter is not None:
            y = y + self.attn_adapter(y)
        x = x + y
        y = self.norm2(x)
        x = x + self.mlp(y)
        return x if self.mlp_adapter is None else x + BESIDE_MLP * self.mlp_adapter(y)


class PatchEmbed(nn.Module):
    """Patches as tokens."""

    def __init__(self, dim: int) -> None:
        """``dim``: channels of a token."""
        super().__init__()
        self.proj = nn.Conv2d(3, dim, STRIDE, STRIDE)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw c"]:
        """(B, 3, H, W) -> (B, H/16, W/16, C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class ImageEncoderViT(nn.Module):
    """ViT-B, L or H at a fixed square input."""

    def __init__(self, config: SamConfig) -> None:
        """Build from ``config.vit``."""
        super().__init__()
        vit = config.vit
        assert vit is not None, "guaranteed by SamConfig"
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, vit.embed_dim))
        self.patch_embed = PatchEmbed(vit.embed_dim)
        self.blocks = nn.ModuleList(
            Block(
                *(vit.embed_dim, vit.num_heads, vit.mlp_ratio, 0 if i in vit.global_blocks else vit.window),
                *(config.grid, config.adapter_dim),
            )
            for i in range(vit.depth)
        )
        self.neck = sam_neck(vit.embed_dim, config.prompt_dim)
        self.early_block = min(vit.global_blocks)

    def forward(self, x: Float[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b e g g"]]:
        """Embedding, and the output of the first global block (raw, before any norm) for the HQ branch."""
        x = self.patch_embed(x) + self.pos_embed
        early = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.early_block:
                early = x
        return self.neck(x.permute(0, 3, 1, 2)), early.permute(0, 3, 1, 2)


class ContextBlock(nn.Module):
    """Residual block with a wide depthwise convolution (ConvNeXt, Liu et al. 2022): (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, kernel: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = SameConv2d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
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
