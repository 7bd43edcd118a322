"""Boxes and scores of a label map at the original resolution, on a CPU computed only where an object can be.

The label of a pixel is the largest of the probabilities resized (bilinear, corners not aligned) to the original size,
the rule of XMem's evaluation code. A winner among n probabilities that sum to one has at least 1/n, and a resized value
is a mean of its neighbours: so an object's pixels lie inside the window around its probabilities of at least 1/n, and
only channels that reach 1/n in the window compete there. To ask an accelerator for windows would take longer than the
whole map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidseg.masks.paste import resize_part


class Seen(NamedTuple):
    """An object in the label map: its row in the probabilities (0 = first object), box (x1, y1, x2, y2) and score."""

    row: int
    box: tuple[int, int, int, int]
    score: float


def objects_in_label_map(probabilities: Float[Tensor, "N1 h w"], size: tuple[int, int]) -> list[Seen]:
    """Objects that own at least one pixel of the label map of ``size`` (height, width).

    Args:
        probabilities: background first, sum one over the channels.
        size: the original resolution.

    Returns:
        Row, tight box (right and bottom exclusive, original pixels) and mean probability inside the mask, in order.
    """
    if probabilities.device.type != "cpu":
        return _in_whole_map(probabilities, size)
    least = (1 - 1e-5) / len(probabilities)  # the margin covers rounding of the sum
    rows, columns = ((probabilities[1:].amax(dim) >= least).cpu() for dim in (2, 1))
    found = []
    for row in range(len(rows)):
        if not rows[row].any():
            continue
        down, right = _span(rows[row], size[0]), _span(columns[row], size[1])
        crop = probabilities[:, down.source, right.source]
        rivals = torch.nonzero(crop.amax((1, 2)) >= least)[:, 0]
        window = down.resize(right.resize(crop[rivals], 2), 1)
        own = int((rivals == row + 1).nonzero())
        mask = wins(window, own)
        ys, xs = (mask.amax(dim).nonzero()[:, 0].tolist() for dim in (1, 0))
        if ys:
            x, y = right.start, down.start
            box = (x + xs[0], y + ys[0], x + xs[-1] + 1, y + ys[-1] + 1)
            found.append(Seen(row, box, float((window[own] * mask).sum() / mask.sum())))
    return found


def _in_whole_map(probabilities: Float[Tensor, "N1 h w"], size: tuple[int, int]) -> list[Seen]:
    """The same from all pixels, waiting for the device once."""
    full = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    objects = torch.arange(1, len(full), device=full.device)
    masks = full.argmax(0) == objects[:, None, None]
    score = (full[1:] * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
    told = torch.cat([masks.any(2), masks.any(1), score[:, None]], 1).cpu().numpy()
    found = []
    for row, numbers in enumerate(told):
        ys, xs = (np.flatnonzero(part) for part in (numbers[: size[0]], numbers[size[0] : -1]))
        if len(ys):
            box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
            found.append(Seen(row, box, float(numbers[-1])))
    return found


def wins(values: Float[Tensor, "n h w"], own: int) -> Float[Tensor, "h w"]:
    """1 where ``values.argmax(0) == own``, else 0; the first of equals wins.

    Comparisons are ten times as fast as argmax, and twice as fast again when they give numbers.
    """
    mine = values[own]
    result, beats = torch.ones_like(mine), torch.empty_like(mine)
    for channel, other in enumerate(values):
        if channel != own:
            (torch.gt if channel < own else torch.ge)(mine, other, out=beats)
            result.mul_(beats)
    return result


class _Span(NamedTuple):
    """Output pixels start..stop of a resize from ``length`` to ``size``, and the input pixels they depend on."""

    start: int
    stop: int
    length: int
    size: int
    source: slice

    def resize(self, x: Tensor, dim: int) -> Tensor:
        """The outputs along one dimension; ``x`` holds the source."""
        return resize_part(x, dim, self.start, self.stop, self.source.start, self.length, self.size)


def _span(possible: Tensor, size: int) -> _Span:
    """Every output pixel that depends on a possible input pixel."""
    index, length = possible.nonzero()[:, 0], len(possible)
    first, last = int(index[0]), int(index[-1])
    if length == size:
        return _Span(first, last + 1, length, size, slice(first, last + 1))
    scale = size / length
    start, stop = max(0, int((first - 1) * scale)), min(size, int((last + 2) * scale) + 1)
    return _Span(start, stop, length, size, slice(max(0, first - 2), min(length, last + 4)))
