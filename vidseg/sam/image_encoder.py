"""The ViT image encoder of Segment Anything: windowed and global attention with decomposed relative positions.

Kirillov et al. 2023, appendix A "Image encoder", after ViTDet (Li et al. 2022).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.sam.config import STRIDE, SamConfig
from vidseg.sam.layers import LayerNorm2d

EPS = 1e-6
BIAS_ELEMENTS = 2**24
"""Attention logits of this many (query, key) pairs have their bias in memory at a time (64 MiB in float32)."""


def neck(dim_in: int, dim_out: int) -> nn.Sequential:
    """The last layers of the official encoders: (B, dim_in, h, w) -> (B, dim_out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(dim_in, dim_out, 1, bias=False),
        LayerNorm2d(dim_out),
        nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False),
        LayerNorm2d(dim_out),
    )


def to_windows(x: Float[Tensor, "b h w c"], size: int) -> Float[Tensor, "bn s s c"]:
    """Zero-pad right and bottom to a multiple of ``size`` and cut into windows, row by row."""
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, (size - w % size) % size, 0, (size - h % size) % size))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.view(b, rows, size, columns, size, c).transpose(2, 3)
    return x.reshape(b * rows * columns, size, size, c)


def from_windows(windows: Float[Tensor, "bn s s c"], height: int, width: int) -> Float[Tensor, "b h w c"]:
    """Undo :func:`to_windows`."""
    size, c = windows.shape[1], windows.shape[3]
    rows, columns = (height + size - 1) // size, (width + size - 1) // size  # ONNX divides towards zero
    x = windows.view(-1, rows, columns, size, size, c).transpose(2, 3)
    return x.reshape(-1, rows * size, columns * size, c)[:, :height, :width]


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
    b, n, length, _ = q.shape
    step = max(1, BIAS_ELEMENTS // (b * n * length))
    parts = []
    for start in range(0, length, step):
        here = slice(start, start + step)
        bias = (row_bias[:, :, here, :, None] + column_bias[:, :, here, None, :]).flatten(-2)
        parts.append(F.scaled_dot_product_attention(q[:, :, here], k, v, attn_mask=bias.to(q.dtype)))
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


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
        """Apply."""
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; ``window`` 0 attends everywhere."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, window: int, grid: int) -> None:
        """``grid``: side of the whole map."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, num_heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.window = window

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """Windows are padded after the norm, so padded tokens are zero; they are attended to like any other."""
        h, w = x.shape[1:3]
        y = self.norm1(x)
        if self.window:
            y = from_windows(self.attn(to_windows(y, self.window)), h, w)
        else:
            y = self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


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
            Block(vit.embed_dim, vit.num_heads, vit.mlp_ratio, 0 if i in vit.global_blocks else vit.window, config.grid)
            for i in range(vit.depth)
        )
        self.neck = neck(vit.embed_dim, config.prompt_dim)
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
