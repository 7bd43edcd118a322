"""The networks of SAM 2's video memory: the encoder of memory frames, and the attention that reads them."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import LayerNorm2d
from vidseg.sam2.config import Sam2Config

ROPE_THETA = 10000.0
BLOCK = 512
"""Queries and keys that attention on CPUs works on at a time."""
NEVER = -1e30
"""Score of a key that is not there: finite, so that a block without any key gives no NaN."""


class _MaskDownsampler(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise((1, 4, 16, 64, 256)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), LayerNorm2d(b), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, dim, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """(N, 1, S, S) -> (N, D, S/16, S/16)."""
        return cast(Tensor, self.encoder(mask))


class _ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D, h, w)."""
        y = self.norm.last(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class _Fuser(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ConvNextBlock(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Through the blocks."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """The image's embedding and an object's mask -> spatial memory."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.mask_downsampler = _MaskDownsampler(config.dim)
        self.pix_feat_proj = nn.Conv2d(config.dim, config.dim, 1)
        self.fuser = _Fuser(config.dim)
        self.out_proj = nn.Conv2d(config.dim, config.memory_dim, 1)

    def forward(self, embedding: Float[Tensor, "B D g g"], masks: Float[Tensor, "N 1 S S"]) -> Float[Tensor, "N M g g"]:
        """``embedding`` is the raw one (B is 1 or N); ``masks`` are scaled to -10..10."""
        x = self.pix_feat_proj(embedding) + self.mask_downsampler(masks.to(embedding.dtype))
        return cast(Tensor, self.out_proj(self.fuser(x)))


class RotaryAttention(nn.Module):
    """Attention with one head whose queries and keys are rotated by their place on the grid."""

    def __init__(self, dim: int, kv_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(kv_dim, dim)
        self.v_proj = nn.Linear(kv_dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, rotation: Tensor, plain: int, mask: Tensor | None) -> Tensor:
        """(N, L, D), (N, T, .), (N, T, .) -> (N, L, D).

        ``rotation`` (L, D/2, 2) belongs to one frame and is repeated for all; the last ``plain`` keys are not rotated.
        ``mask`` (N, 1, 1, T) says which keys there are.
        """
        q, k = rotate(self.q_proj(q), rotation), self.k_proj(k)
        rotated = k.shape[1] - plain
        frames = k[:, :rotated].unflatten(1, (-1, len(rotation)))
        k = torch.cat([rotate(frames, rotation).flatten(1, 2), k[:, rotated:]], 1)
        blocks = q.device.type == "cpu" and q.dtype == torch.float32 and not q.requires_grad
        if blocks and v.shape[-1] < q.shape[-1]:
            out = self.v_proj(attend(q, k, v, mask))  # weights sum to 1: narrow values are projected afterwards
        else:
            out = F.scaled_dot_product_attention(q[:, None], k[:, None], self.v_proj(v)[:, None], mask)[:, 0]
        return cast(Tensor, self.out_proj(out))


def attend(
    q: Float[Tensor, "N L D"],
    k: Float[Tensor, "N T D"],
    v: Float[Tensor, "N T M"],
    mask: Bool[Tensor, "N 1 1 T"] | None,
) -> Float[Tensor, "N L M"]:
    """Attention for values narrower than keys, in blocks that stay in a CPU's cache.

    PyTorch's has one width for both. ``mask`` says which keys there are.
    """
    out = v.new_empty(*q.shape[:2], v.shape[2])
    for n in range(len(q)):
        keys, values = k[n].T.contiguous(), F.pad(v[n], (0, 1), value=1.0)  # the column of ones adds the weights up
        for i in range(0, q.shape[1], BLOCK):
            query = q[n, i : i + BLOCK] * q.shape[2] ** -0.5
            total = v.new_zeros(len(query), values.shape[1])
            top = v.new_full((len(query), 1), NEVER)
            for j in range(0, k.shape[1], BLOCK):
                score = query @ keys[:, j : j + BLOCK]
                if mask is not None:
                    score.masked_fill_(~mask[n, 0, :, j : j + BLOCK], NEVER)
                higher = torch.maximum(top, score.amax(1, keepdim=True))
                weights = score.sub_(higher).exp_()
                total = torch.addcmul(weights @ values[j : j + BLOCK], total, (top - higher).exp_())
                top = higher
            torch.div(total[:, :-1], total[:, -1:], out=out[n, i : i + BLOCK])
    return out


def rotate(x: Float[Tensor, "*N L D"], rotation: Float[Tensor, "L half 2"]) -> Float[Tensor, "*N L D"]:
    """Rotate the pairs of channels (2i, 2i + 1) by the angles whose cosine and sine are given."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


def rotations(grid: int, dim: int, device: torch.device) -> Float[Tensor, "L half 2"]:
    """Cosine and sine for every cell of the grid, row by row: half of the pairs turn with x, the others with y."""
    frequency = 1 / ROPE_THETA ** (torch.arange(0, dim, 4, device=device, dtype=torch.float32)[: dim // 4] / dim)
    place = torch.arange(grid * grid, device=device, dtype=torch.float32)
    x, y = place % grid, torch.div(place, grid, rounding_mode="floor")
    angle = torch.cat([x[:, None] * frequency, y[:, None] * frequency], 1)
    return torch.stack([angle.cos(), angle.sin()], -1)


class _Layer(nn.Module):
    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = RotaryAttention(dim, dim)
        self.cross_attn_image = RotaryAttention(dim, config.memory_dim)
        self.linear1 = nn.Linear(dim, config.attention_ff)
        self.linear2 = nn.Linear(config.attention_ff, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, x: Tensor, keys: Tensor, memory: Tensor, rotation: Tensor, pointers: int, mask: Tensor | None
    ) -> Tensor:
        """Self-attention, cross-attention to memory, MLP; each on the normalised input, added to it."""
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y, rotation, 0, None)
        x = x + self.cross_attn_image(self.norm2(x), keys, memory, rotation, pointers, mask)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """The image's embedding after it has read the memory of an object."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.attention_layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        embedding: Float[Tensor, "B D g g"],
        positions: Float[Tensor, "1 D g g"],
        memory: Float[Tensor, "N T M"],
        memory_positions: Float[Tensor, "N T M"],
        pointers: int,
        mask: Bool[Tensor, "N T"] | None = None,
    ) -> Float[Tensor, "N D g g"]:
        """Read ``memory``, whose last ``pointers`` tokens are object pointers; B is 1 or N.

        ``mask`` (bool) says which tokens of a row there are, where the objects of a batch have different numbers.
        """
        grid = embedding.shape[-1]
        rotation = rotations(grid, embedding.shape[1], embedding.device)
        x = (embedding + 0.1 * positions.to(embedding.dtype)).flatten(2).transpose(1, 2)
        x = x.expand(len(memory), -1, -1)
        memory = memory.to(x.dtype)
        keys = memory + memory_positions.to(x.dtype)
        allowed = None if mask is None else mask[:, None, None]
        for layer in self.layers:
            x = layer(x, keys, memory, rotation, pointers, allowed)
        return cast(Tensor, self.norm(x)).transpose(1, 2).unflatten(2, (grid, grid))
