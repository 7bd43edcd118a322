"""The transformer decoder with masked attention (section 3.2.2), over one image or over all frames of a clip.

One query is one object in the whole clip: identities inside a clip need no tracker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.pixel_decoder import LEVELS
from vidseg_trackers.mask2former.positions import clip_positions, image_positions


class Queries(NamedTuple):
    """What Q queries say of a clip, float32.

    ``class_logits``: (Q, classes + 1), the last is "no object". ``embeddings``: (Q, C), the normalised final state,
    which tells objects apart. ``mask_embeddings``: (Q, C); their dot products with mask features are mask logits.
    """

    class_logits: Float[Tensor, "Q K1"]
    embeddings: Float[Tensor, "Q C"]
    mask_embeddings: Float[Tensor, "Q C"]


class Attention(nn.Module):
    """Multi-head attention with the parameter names of ``nn.MultiheadAttention``, which never keeps its weights."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Bool[Tensor, "Q N"] | None = None) -> Tensor:
        """(Q, C), (N, C), (N, C) -> (Q, C). ``allowed``: where a query may look."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if allowed is None else allowed[None, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(x[0].transpose(0, 1).flatten(1))


class CrossAttentionLayer(nn.Module):
    """Queries look at the tokens inside their own masks (eq. 1 and 2)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, place: Tensor, tokens: Tensor, position: Tensor, allowed: Tensor) -> Tensor:
        """``x``, ``place``: (Q, C); ``tokens``, ``position``: (N, C)."""
        return self.norm(x + self.multihead_attn(x + place, tokens + position, tokens, allowed))


class SelfAttentionLayer(nn.Module):
    """Queries look at each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """(Q, C) -> (Q, C)."""
        return self.norm(x + self.self_attn(x + place, x + place, x))


class FeedForwardLayer(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(Q, C) -> (Q, C)."""
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MaskEmbed(nn.Module):
    """Three linear layers from a query to its mask embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(Q, C) -> (Q, C)."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class TransformerDecoder(nn.Module):
    """Queries through all layers; layer k attends to level k mod 3, coarse first."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        dim, heads, layers = config.dim, config.heads, range(config.decoder_layers)
        self.video = config.video
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(dim, heads) for _ in layers)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(dim, heads) for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(dim, config.decoder_ffn) for _ in layers)
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_feat = nn.Embedding(config.queries, dim)
        self.query_embed = nn.Embedding(config.queries, dim)
        self.level_embed = nn.Embedding(LEVELS, dim)
        self.class_embed = nn.Linear(dim, config.classes + 1)
        self.mask_embed = MaskEmbed(dim)

    def forward(self, maps: Sequence[Float[Tensor, "T C _ _"]], mask_features: Float[Tensor, "T C H W"]) -> Queries:
        """A clip of T frames: the maps of the pixel decoder (coarse first) and its mask features.

        Intermediate predictions are not kept. Their masks are needed at the size of the next level only; as resizing is
        linear, the mask features are resized once instead of the masks of every query.
        """
        tokens, positions, small = [], [], []
        for i, level in enumerate(maps):
            frames, dim, height, width = level.shape
            code = (
                clip_positions(frames, height, width, dim, level.device)
                if self.video
                else image_positions(height, width, dim, level.device).expand(frames, -1, -1, -1)
            )
            positions.append(code.flatten(0, 2))
            tokens.append(level.permute(0, 2, 3, 1).flatten(0, 2) + self.level_embed.weight[i])
            small.append(F.interpolate(mask_features, (height, width), mode="bilinear", align_corners=False))
        x, place = self.query_feat.weight, self.query_embed.weight
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for k, (cross, own, feed) in enumerate(layers):
            i = k % LEVELS
            allowed = inside_masks(self.mask_embed(self.decoder_norm(x)), small[i])
            x = feed(own(cross(x, place, tokens[i], positions[i], allowed), place))
        x = self.decoder_norm(x)
        return Queries(self.class_embed(x).float(), x.float(), self.mask_embed(x).float())


def inside_masks(
    mask_embeddings: Float[Tensor, "Q C"], mask_features: Float[Tensor, "T C h w"]
) -> Bool[Tensor, "Q T*h*w"]:
    """Where each query may look: inside its own mask, or everywhere when that is empty on all frames."""
    logits = torch.einsum("qc,tchw->qthw", mask_embeddings, mask_features).flatten(1)
    inside = logits.sigmoid() >= 0.5
    return inside | ~inside.any(1, keepdim=True)
