"""Object queries: what a memory frame says about an object as a whole, and how that steers the pixel readout.

Half of the queries stand for the object, half for the rest of the image; each may attend only to its own pixels (Cutie,
section 3.3). The residual of both attentions is the NORMALISED query, as in the published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.modules import Attention, CAResBlock, PositionalEncoding
from vidseg_trackers.xmem.network import aggregate


class ObjectSummarizer(nn.Module):
    """Values of a memory frame and the objects' masks -> sums of features and of weights, for every query."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        dim = config.pixel_dim
        self.queries = config.queries
        self.pos_enc = PositionalEncoding(dim)
        self.input_proj = nn.Linear(dim, dim)
        self.feature_pred = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.weights_pred = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, config.queries))

    def forward(self, value: Float[Tensor, "B N C h w"], masks: Float[Tensor, "B N H W"]) -> Float[Tensor, "B N Q C+1"]:
        """``masks`` are soft, at the image's size. The last column holds the sums of the weights. float32."""
        inside = F.interpolate(masks, value.shape[-2:], mode="area")[..., None]
        x = self.input_proj(value.permute(0, 1, 3, 4, 2))
        x = x + self.pos_enc(*value.shape[-2:]).to(x.dtype)
        feature = self.feature_pred(x).float()
        half = self.queries // 2
        share = torch.cat([inside.expand(*inside.shape[:-1], half), (1 - inside).expand(*inside.shape[:-1], half)], -1)
        weights = torch.sigmoid(self.weights_pred(x).float()) * share
        sums = torch.einsum("bnhwq,bnhwc->bnqc", weights, feature)
        return torch.cat([sums, weights.sum((2, 3))[..., None]], -1)


class _CrossAttention(nn.Module):
    def __init__(self, config: CutieConfig, norm: bool) -> None:
        super().__init__()
        self.cross_attn = Attention(config.pixel_dim, config.heads)
        self.norm = nn.LayerNorm(config.pixel_dim) if norm else None

    def forward(self, x: Tensor, memory: Tensor, x_pe: Tensor, memory_pe: Tensor, attend: Tensor | None) -> Tensor:
        """``x`` (normalised, where there is a norm) plus what it reads from ``memory``."""
        x = x if self.norm is None else self.norm(x)
        return x + self.cross_attn(x + x_pe, memory + memory_pe, memory, attend)


class _SelfAttention(nn.Module):
    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.pixel_dim, config.heads)
        self.norm = nn.LayerNorm(config.pixel_dim)

    def forward(self, x: Tensor, pe: Tensor) -> Tensor:
        """The normalised ``x`` plus what its rows read from each other."""
        x = self.norm(x)
        return x + self.self_attn(x + pe, x + pe, x)


class _FeedForward(nn.Module):
    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.pixel_dim, config.ff_dim)
        self.linear2 = nn.Linear(config.ff_dim, config.pixel_dim)
        self.norm = nn.LayerNorm(config.pixel_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, not normalised, plus the network of its normalised form."""
        return x + self.linear2(F.relu(self.linear1(self.norm(x))))


class _PixelFeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = CAResBlock(dim)

    def forward(self, pixel: Tensor, height: int, width: int) -> Tensor:
        """Rows (n, h*w, C) as a map through a residual block."""
        image = pixel.transpose(1, 2).unflatten(2, (height, width))
        return self.conv(image).flatten(2).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.read_from_pixel = _CrossAttention(config, norm=True)
        self.self_attn = _SelfAttention(config)
        self.ffn = _FeedForward(config)
        self.read_from_query = _CrossAttention(config, norm=False)
        self.pixel_ffn = _PixelFeedForward(config.pixel_dim)

    def forward(
        self, query: Tensor, pixel: Tensor, query_pe: Tensor, pixel_pe: Tensor, attend: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Queries (n, Q, C) and pixels (n, h*w, C) after reading from each other."""
        query = self.read_from_pixel(query, pixel, query_pe, pixel_pe, attend)
        query = self.ffn(self.self_attn(query, query_pe))
        pixel = self.read_from_query(pixel, query, pixel_pe, query_pe, None)
        return query, self.pixel_ffn(pixel, *size)


class ObjectTransformer(nn.Module):
    """Steers the pixel readout of every object with its object memory."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        dim = config.pixel_dim
        self.query_init = nn.Embedding(config.queries, dim)
        self.query_emb = nn.Embedding(config.queries, dim)
        self.summary_to_query_init = nn.Linear(dim, dim)
        self.summary_to_query_emb = nn.Linear(dim, dim)
        self.pixel_init_proj = nn.Conv2d(dim, dim, 1)
        self.pixel_emb_proj = nn.Conv2d(dim, dim, 1)
        self.spatial_pe = PositionalEncoding(dim)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.mask_pred = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Conv2d(dim, 1, 1)) for _ in range(config.blocks + 1))

    def forward(
        self, fused: Float[Tensor, "B N C h w"], object_memory: Float[Tensor, "B N Q C1"]
    ) -> Float[Tensor, "B N C h w"]:
        """The readout of every object; the objects given together see each other as background."""
        b, n, c, h, w = fused.shape
        flat = fused.flatten(0, 1)
        summary = (object_memory[..., :-1] / (object_memory[..., -1:] + 1e-4)).flatten(0, 1).to(fused.dtype)
        query = self.query_init.weight + self.summary_to_query_init(summary)
        query_pe = self.query_emb.weight + self.summary_to_query_emb(summary)
        place = self.spatial_pe(h, w).flatten(0, 1).to(fused.dtype)
        pixel_pe = place + _rows(self.pixel_emb_proj(flat))
        pixel = _rows(self.pixel_init_proj(flat))
        for block, mask_pred in zip(self.blocks, self.mask_pred, strict=False):  # the last prediction is for training
            image = pixel.transpose(1, 2).unflatten(2, (h, w))
            attend = ~blocked_pixels(mask_pred(image).view(b, n, h, w).float(), query.shape[1])
            query, pixel = block(query, pixel, query_pe, pixel_pe, attend.flatten(0, 1), (h, w))
        return pixel.transpose(1, 2).reshape(b, n, c, h, w)


def blocked_pixels(logits: Float[Tensor, "B N h w"], queries: int) -> Bool[Tensor, "B N Q h*w"]:
    """The pixels that the queries of every object may not attend to.

    A pixel belongs to an object whose aggregated logit nobody beats (ties belong to all of them). The first half of the
    queries sees the object's pixels, the second half the others; a query without any pixel sees all.
    """
    scores = aggregate(torch.sigmoid(logits))
    inside = (scores[:, 1:] >= scores.amax(1, keepdim=True)).flatten(2)[:, :, None]
    half = queries // 2
    blocked = torch.cat([(~inside).expand(-1, -1, half, -1), inside.expand(-1, -1, half, -1)], 2)
    return blocked & ~blocked.all(-1, keepdim=True)


def _rows(x: Float[Tensor, "n C h w"]) -> Float[Tensor, "n h*w C"]:
    return x.flatten(2).transpose(1, 2)
