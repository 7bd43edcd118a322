"""What the networks say of how far masks can be trusted, as whole numbers that travel home with the rest.

:func:`certainty` and :func:`agreement` stay on the device; :func:`measured` turns their numbers into signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vidseg.masks.trust import Signals, rounded
from vidseg.types import Array, Tracks
from vidseg_pipelines.mask_layers import grown

_SCALE = 10_000
_GRID = 64
"""Cells per side in which an object and what is around it are judged, whatever their size."""
_MARGIN = 0.15
"""Of the box's sides that are judged too, on each side of it."""
_NEAR = 2
"""How far cells of the band along the outline are from both sides of it at most, in these cells."""


def certainty(tracks: Tracks, hw: tuple[int, int]) -> Int[Tensor, " n"]:
    """Mean of abs(2p - 1) near every object's outline, times 10,000; -1 without an outline.

    ``tracks`` have masks, of at least one object; ``hw``: height and width of the frame, in whose pixels the boxes are.
    """
    maps = tracks.masks
    assert maps is not None
    height, width = maps.shape[1:]
    views = []
    for probabilities, (x1, y1, x2, y2) in zip(maps, tracks.boxes.tolist(), strict=True):
        dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
        left, right = _cells(x1 - dx, x2 + dx, width / hw[1], width)
        top, bottom = _cells(y1 - dy, y2 + dy, height / hw[0], height)
        view = probabilities[None, None, top:bottom, left:right].float()
        views.append(F.interpolate(view, (_GRID, _GRID), mode="bilinear", align_corners=False))
    seen = torch.cat(views)
    inside = seen[:, 0] > 0.5
    band = (grown(inside, _NEAR) & grown(~inside, _NEAR)).flatten(1)
    total, sure = band.sum(1), (band * (2 * seen - 1).abs().flatten(1)).sum(1)
    return torch.where(total > 0, (_SCALE * sure / total.clamp(min=1)).round(), -torch.ones_like(total)).int()


def _cells(low: float, high: float, scale: float, size: int) -> tuple[int, int]:
    """The cells of a map that a span of pixels lies on; at least one."""
    first = min(size - 1, max(0, int(low * scale)))
    return first, max(first + 1, min(size, int(high * scale) + 1))


class Agreement(NamedTuple):
    """How the tracker's and the redrawn mask of an object agree, in the decoder's cells."""

    both: int
    """Cells in common."""
    either: int
    """Cells of at least one of them."""
    rows: int
    """Of the redrawn mask."""
    columns: int
    hq_iou: int
    """IoU of SAM's own mask and the redrawn one, times 10,000; -1 where it is not known."""


def agreement(
    own: Float[Tensor, "n h w"], drawn: Float[Tensor, "n h w"], hq_iou: Float[Tensor, "n 1"] | None
) -> Int[Tensor, "n 5"]:
    """The numbers of :class:`Agreement` for the tracker's and the redrawn logits of n objects."""
    a, b = own > 0, drawn > 0
    numbers = [(a & b).sum((1, 2)), (a | b).sum((1, 2)), b.any(2).sum(1), b.any(1).sum(1)]
    numbers.append(torch.full_like(numbers[0], -1) if hq_iou is None else (hq_iou[:, 0] * _SCALE).round())
    return torch.stack([n.int() for n in numbers], 1)


def measured(
    tracks: Sequence[Tracks], certain: Mapping[int, Array], agreed: Mapping[tuple[int, int], Agreement]
) -> list[dict[int, Signals]]:
    """By frame and object id, the signals of the numbers that came home.

    Args:
        tracks: of all frames.
        certain: by frame, what :func:`certainty` gave.
        agreed: by frame and row of its tracks.
    """
    return [
        {
            i: _signals(int(certain[n][row]) if n in certain else -1, agreed.get((n, row)))
            for row, i in enumerate(found.ids.tolist())
        }
        for n, found in enumerate(tracks)
    ]


def _signals(certain: int, agreed: Agreement | None) -> Signals:
    return Signals(
        certainty=rounded(certain / _SCALE) if certain >= 0 else None,
        tracker_iou=rounded(agreed.both / agreed.either) if agreed is not None and agreed.either else None,
        hq_iou=rounded(min(1.0, agreed.hq_iou / _SCALE)) if agreed is not None and agreed.hq_iou >= 0 else None,
    )
