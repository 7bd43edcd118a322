"""Prompts as tokens: boxes and points become Fourier features plus learned embeddings, masks a dense map.

Segment Anything (Kirillov et al. 2023), section 3 "Prompt encoder" and appendix A.
"""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import LayerNorm2d


class PositionEncoding(nn.Module):
    """Random Fourier features of positions in the unit square; the random matrix is part of the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        """``dim``: width of the code, half sines and half cosines."""
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, xy: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n d"]:
        """Code of positions (x, y) in 0..1. Written without a matrix product, so autocast leaves it in float32."""
        matrix = self.positional_encoding_gaussian_matrix
        xy = 2 * xy.to(matrix.dtype) - 1
        angle = 2 * math.pi * (xy[..., :1] * matrix[0] + xy[..., 1:] * matrix[1])
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PromptConfig(Protocol):
    """What the prompt encoder takes from the configuration of a network."""

    @property
    def prompt_dim(self) -> int: ...
    @property
    def mask_in_channels(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def grid(self) -> int: ...


class PromptEncoder(nn.Module):
    """Sparse tokens for boxes and points, a dense embedding for masks."""

    def __init__(self, config: PromptConfig) -> None:
        """Build the embeddings for ``config.prompt_dim``."""
        super().__init__()
        dim, mask_in = config.prompt_dim, config.mask_in_channels
        self.image_size = config.image_size
        self.grid = config.grid
        self.pe_layer = PositionEncoding(dim)
        # 0 background point, 1 object point, 2 top-left corner, 3 bottom-right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in // 4, 2, 2),
            LayerNorm2d(mask_in // 4),
            nn.GELU(),
            nn.Conv2d(mask_in // 4, mask_in, 2, 2),
            LayerNorm2d(mask_in),
            nn.GELU(),
            nn.Conv2d(mask_in, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def dense_pe(self, height: int, width: int) -> Float[Tensor, "1 hw d"]:
        """Code of the cell centres of the top-left ``height`` x ``width`` cells of the square grid."""
        device = self.no_mask_embed.weight.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / self.grid
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / self.grid
        xy = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        return cast(Tensor, self.pe_layer(xy)).reshape(1, height * width, -1)

    def forward(
        self,
        boxes: Float[Tensor, "n 4"] | None = None,
        points: Float[Tensor, "n p 2"] | None = None,
        labels: Int[Tensor, "n p"] | None = None,
        masks: Float[Tensor, "n 1 h4 w4"] | None = None,
    ) -> tuple[Float[Tensor, "n t d"], Float[Tensor, "m d h w"]]:
        """Tokens and dense embedding of N prompts; all given kinds must have the same N.

        Coordinates are pixels (x, y) of the resized image; labels 1 object, 0 background, -1 no point. Masks are logits
        at 4 times the grid. Tokens: points, then a "no point" when there is no box, then the two corners. The dense
        embedding is (N, D, h, w) with masks, else the constant (1, D, 1, 1).
        """
        tokens: list[Tensor] = []
        if points is not None and labels is not None:
            tokens.append(self._points(points, labels, pad=boxes is None))
        if boxes is not None:
            corners = self.pe_layer((boxes.reshape(-1, 2, 2) + 0.5) / self.image_size)
            tokens.append(corners + torch.cat([self._point(2), self._point(3)]))
        if masks is None:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        else:
            dense = self.mask_downscaling(masks)
        if tokens:
            return torch.cat(tokens, dim=1), dense
        return dense.new_zeros(dense.shape[0], 0, dense.shape[1]), dense

    def _point(self, kind: int) -> Tensor:
        return cast(nn.Embedding, self.point_embeddings[kind]).weight

    def _points(self, points: Tensor, labels: Tensor, pad: bool) -> Tensor:
        if pad:
            points = F.pad(points, (0, 0, 0, 1))
            labels = F.pad(labels, (0, 1), value=-1)
        code = self.pe_layer((points + 0.5) / self.image_size)
        label = labels[..., None]
        code = code + torch.where(label == 1, self._point(1), self._point(0))
        return torch.where(label == -1, self.not_a_point_embed.weight, code)


# Prompts drawn as a mask, for small networks that cannot learn to find positions from tokens alone. The official
# networks know a box only by the Fourier code of its corners; the compact one also gets it as mask logits, in the place
# of the mask prompt: surely background outside the box, likely object inside, sure at the points.
OUTSIDE, INSIDE, SURE = -10.0, 2.0, 10.0
MAP_STRIDE = 4
RADIUS = 8.0
"""Pixels around a point that take its label."""


def prompt_map(
    size: tuple[int, int],
    boxes: Float[Tensor, "n 4"] | None = None,
    points: Float[Tensor, "n p 2"] | None = None,
    labels: Int[Tensor, "n p"] | None = None,
    masks: Float[Tensor, "n 1 h w"] | None = None,
) -> Float[Tensor, "n 1 h w"]:
    """Logits at ``size`` (height, width), a quarter of the input's resolution; coordinates are pixels of the input.

    A given mask is the ground; without it the box is (cells cut by its edge take part by area), without both it is 0.
    Points are drawn on top: label 1 object, 0 background, others nothing.
    """
    given = [t for t in (boxes, points, masks) if t is not None]
    device, count = given[0].device, given[0].shape[0]
    if masks is not None:
        ground = masks[:, 0]
    elif boxes is not None:
        ground = box_ground(size, boxes)
    else:
        ground = torch.zeros(count, *size, device=device)
    if points is not None and labels is not None:
        for point, label in zip(points.unbind(1), labels.unbind(1), strict=True):
            near, target = point_mark(size, point, label)
            ground = ground + near * (target - ground)
    return ground[:, None]


def box_ground(size: tuple[int, int], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n h w"]:
    """Boxes as logits: background outside, likely object inside, by area in the cells that their edges cut."""
    x, y = _centres(size, boxes.device)
    x1, y1, x2, y2 = (boxes[:, i, None] for i in range(4))
    across = (torch.minimum(x - x1, x2 - x) / MAP_STRIDE + 0.5).clamp(0, 1)
    down = (torch.minimum(y - y1, y2 - y) / MAP_STRIDE + 0.5).clamp(0, 1)
    return OUTSIDE + (INSIDE - OUTSIDE) * down[:, :, None] * across[:, None, :]


def point_mark(
    size: tuple[int, int], points: Float[Tensor, "*n 2"], labels: Num[Tensor, "*n"]
) -> tuple[Float[Tensor, "*n h w"], Float[Tensor, "*n 1 1"]]:
    """How much of every cell a point takes (0..1; labels other than 0 and 1 take nothing), and the logit it brings."""
    x, y = _centres(size, points.device)
    square = (x - points[..., :1])[..., None, :] ** 2 + (y - points[..., 1:])[..., :, None] ** 2
    label = labels[..., None, None]
    near = (1.5 - square.sqrt() / RADIUS).clamp(0, 1) * ((label == 0) | (label == 1))
    return near, torch.where(label == 1, SURE, -SURE)


def _centres(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns and rows of the centres of the cells, in pixels of the input."""
    x = (torch.arange(size[1], device=device) + 0.5) * MAP_STRIDE
    y = (torch.arange(size[0], device=device) + 0.5) * MAP_STRIDE
    return x, y
