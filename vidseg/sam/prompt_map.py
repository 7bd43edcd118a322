"""Prompts drawn as a mask, for small networks that cannot learn to find positions from tokens alone.

The official networks know a box only by the Fourier code of its corners. The compact one also gets it as mask logits,
in the place of the mask prompt: surely background outside the box, likely object inside, sure at the points.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

OUTSIDE, INSIDE, SURE = -10.0, 2.0, 10.0
STRIDE = 4
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
    across = (torch.minimum(x - x1, x2 - x) / STRIDE + 0.5).clamp(0, 1)
    down = (torch.minimum(y - y1, y2 - y) / STRIDE + 0.5).clamp(0, 1)
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
    x = (torch.arange(size[1], device=device) + 0.5) * STRIDE
    y = (torch.arange(size[0], device=device) + 0.5) * STRIDE
    return x, y
