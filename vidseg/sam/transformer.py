"""The two-way transformer of the mask decoder: tokens look at the image and the image looks back at the tokens.

Segment Anything (Kirillov et al. 2023), appendix A "Lightweight mask decoder". The image tokens may stand for a frame
that several prompts share; what does not depend on the prompt yet (projections of the first layer) is computed once
per frame and spread over the prompts with ``rows``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def spread(x: Tensor, rows: Tensor | None) -> Tensor:
    """Row ``rows[i]`` of ``x`` for every prompt i; ``None`` means that ``x`` has one row per prompt already."""
    if rows is None:
        return x
    if x.shape[0] == 1:
        return x.expand(rows.shape[0], *x.shape[1:])
    return x.index_select(0, rows)


class Attention(nn.Module):
    """Multi-head attention with separate projections to ``dim / downsample`` channels."""

    def __init__(self, dim: int, num_heads: int, downsample: int = 1) -> None:
        """``downsample`` 2 halves the width inside, as in the cross attentions."""
        super().__init__()
        inner = dim // downsample
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self,
        q: Float[Tensor, "nq a d"],
        k: Float[Tensor, "nk b d"],
        v: Float[Tensor, "nk b d"],
        q_rows: Int[Tensor, " n"] | None = None,
        kv_rows: Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n a d"]:
        """Attend; ``q_rows`` and ``kv_rows`` spread shared queries or keys over the prompts after the projection."""
        q = spread(self._heads(self.q_proj(q)), q_rows)
        k = spread(self._heads(self.k_proj(k)), kv_rows)
        v = spread(self._heads(self.v_proj(v)), kv_rows)
        if torch.is_grad_enabled() and q.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):  # the gradient is several times slower in bfloat16 there
                out = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class MlpBlock(nn.Module):
    """Linear, ReLU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        """``dim`` -> ``hidden`` -> ``dim``."""
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; normalised after every step."""

    def __init__(
        self, dim: int, num_heads: int, mlp_dim: int, first: bool, mlp: Callable[[int, int], nn.Module] = MlpBlock
    ) -> None:
        """``first``: its self-attention replaces the tokens and adds no positional code."""
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample=2)
        self.first = first

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(tokens (N, T, D), image (M, L, D)) -> the same with one image row per prompt."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        keys = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, keys, image, kv_rows=rows))
        tokens = self.norm3(tokens + self.mlp(tokens))
        back = self.cross_attn_image_to_token(keys, tokens + token_pe, tokens, q_rows=rows)
        return tokens, self.norm4(spread(image, rows) + back)


class TwoWayTransformer(nn.Module):
    """Two two-way blocks and a last look of the tokens at the image."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        depth: int = 2,
        mlp: Callable[[int, int], nn.Module] = MlpBlock,
    ) -> None:
        """Sizes of the official decoder: 256, 8, 2048, 2. ``mlp(dim, hidden)`` builds its MLPs, whose names differ."""
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, num_heads, mlp_dim, i == 0, mlp) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self,
        image: Float[Tensor, "m l d"],
        image_pe: Float[Tensor, "1 l d"],
        tokens: Float[Tensor, "n t d"],
        rows: Int[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, "n t d"], Float[Tensor, "n l d"]]:
        """Tokens and image after the exchange. ``rows[i]`` is the image row of prompt i (None: row i).

        The initial tokens are also the positional code of the tokens everywhere.
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, rows)
            rows = None
        out = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + out), image
