"""Logits of an object from several sources, in pixels of the frame; and how they become label maps.

Everything stays on the device where the logits are. What the computation depends on, which pixels a positive logit can
reach, comes to the host in one transfer for many objects and frames (:func:`to_host`), and so do the label maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vidseg.masks.paste import LogitWindow, Size, Window, upsample_window
from vidseg.sam.zoom import Crop
from vidseg.types import Array

LIMIT = 8.0
"""Logits of several layers are clipped to this before their mean is taken: none may outvote another by certainty."""


class Layer(NamedTuple):
    """Logits (h, w) of one object, or a mask, that cover ``padded``, of which ``resized`` is ``crop`` of the frame.

    ``bounds``: pixels (x1, y1, x2, y2) of the frame that a positive logit can reach; None where there are none.
    ``alone``: positive where no other layer has a say; None: nowhere.
    """

    logits: Shaped[Tensor, "h w"]
    padded: Size
    resized: Size
    crop: Crop
    bounds: Window | None
    alone: Layer | None = None

    @property
    def cell(self) -> tuple[float, float]:
        """Height and width of a cell in pixels of the frame."""
        high, wide = (
            padded / count * length / resized
            for padded, count, length, resized in zip(
                self.padded, self.logits.shape, self.crop.size, self.resized, strict=True
            )
        )
        return high, wide


def to_host(tensors: Sequence[Tensor]) -> list[Array]:
    """Tensors of one device and dtype as arrays of their shapes, all in one transfer."""
    if not tensors:
        return []
    flat = torch.cat([t.flatten() for t in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([t.numel() for t in tensors[:-1]]))
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


def reach(maps: Shaped[Tensor, "n h w"]) -> tuple[Int[Tensor, "n h"], Int[Tensor, "n w"]]:
    """Which rows and columns of each map hold a positive logit, as 0 and 1."""
    return (maps.amax(2) > 0).int(), (maps.amax(1) > 0).int()


def thin_parts(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Where a map is positive on what is thinner than three cells, lines and tips, and away from all that is not."""
    positive = maps > 0
    body = grown(~grown(~positive))
    return positive & ~grown(body)


def grown(masks: Bool[Tensor, "n h w"], cells: int = 1) -> Bool[Tensor, "n h w"]:
    """Every cell of the masks with all neighbours up to ``cells`` rows and columns away."""
    for axis in (1, 2) * cells:
        others, masks = masks, masks.clone()
        count = masks.shape[axis] - 1
        masks.narrow(axis, 0, count).bitwise_or_(others.narrow(axis, 1, count))
        masks.narrow(axis, 1, count).bitwise_or_(others.narrow(axis, 0, count))
    return masks


def layers_of(
    maps: Shaped[Tensor, "n h w"], padded: Size, resized: Size, crop: Crop, rows: Array, columns: Array
) -> list[Layer]:
    """One layer per map; ``rows`` and ``columns`` are what :func:`reach` says of the maps."""
    layers = [Layer(one, padded, resized, crop, None) for one in maps]
    return [one._replace(bounds=_bounds(one, hits)) for one, *hits in zip(layers, rows, columns, strict=True)]


def mean_window(layers: Sequence[Layer]) -> LogitWindow | None:
    """Mean of the upsampled logits in the smallest window that surely holds every positive pixel of each layer.

    None where there are none. Outside its crop a layer is as sure as it can be of the background.
    """
    bounds = [layer.bounds for layer in layers if layer.bounds is not None]
    if not bounds:
        return None
    x1, y1, x2, y2 = (f(b[k] for b in bounds) for k, f in enumerate((min, min, max, max)))
    window = x1, y1, x2, y2
    if len(layers) == 1:
        return LogitWindow(_upsampled(layers[0], window), y1, x1)
    drawn = [_clipped(layer, window) for layer in layers]
    mean = sum(drawn[1:], drawn[0]) / len(drawn)
    for layer, values in zip(layers, drawn, strict=True):
        if layer.alone is not None and layer.alone.bounds is not None:
            x3, y3, x4, y4 = layer.alone.bounds
            place = slice(y3 - y1, y4 - y1), slice(x3 - x1, x4 - x1)
            mean[place] = torch.where(_upsampled(layer.alone, layer.alone.bounds) > 0, values[place], mean[place])
    return LogitWindow(mean, y1, x1)


def _clipped(layer: Layer, window: Window) -> Float[Tensor, "wh ww"]:
    """Logits of a layer in a window of the frame, clipped; as low as can be outside of its crop."""
    x1, y1, x2, y2 = window
    crop, clipped = layer.crop, layer._replace(logits=layer.logits.clamp(-LIMIT, LIMIT))
    part = max(x1, crop.x1), max(y1, crop.y1), min(x2, crop.x2), min(y2, crop.y2)
    if part == window:
        return _upsampled(clipped, window)
    values = layer.logits.new_full((y2 - y1, x2 - x1), -LIMIT, dtype=torch.float32)
    if part[0] < part[2] and part[1] < part[3]:
        values[part[1] - y1 : part[3] - y1, part[0] - x1 : part[2] - x1] = _upsampled(clipped, part)
    return values


def _upsampled(layer: Layer, window: Window) -> Float[Tensor, "wh ww"]:
    """Logits of a layer in a window of the frame that lies in its crop."""
    x1, y1, x2, y2 = window
    left, top = layer.crop.x1, layer.crop.y1
    part = (x1 - left, y1 - top, x2 - left, y2 - top)
    return upsample_window(layer.logits[None], layer.padded, layer.resized, layer.crop.size, part)[0]


def _bounds(layer: Layer, hits: Sequence[Array]) -> Window | None:
    spans, crop = [], layer.crop
    for hit, cell, start, length in zip(hits, layer.cell, (crop.y1, crop.x1), crop.size, strict=True):
        places = np.flatnonzero(hit)
        if not len(places):
            return None
        # Bilinear interpolation carries a value less than a cell from its centre, the second step half a cell more.
        first = max(0, math.floor((int(places[0]) - 1) * cell))
        last = min(length, math.ceil((int(places[-1]) + 2) * cell))
        if last <= first:  # positive only in the padding
            return None
        spans.append((start + first, start + last))
    (y1, y2), (x1, x2) = spans
    return x1, y1, x2, y2
