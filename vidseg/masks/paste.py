"""Mask logits in pixels of the original image: in two bilinear steps, whole or in a window; and whose a pixel is.

The official code upsamples the low-resolution logits to the padded network input, crops the padding away and upsamples
the rest to the original image. One step would not give the same masks, so both are kept. Both steps are separable, so
that a window of the result is interpolated along its rows and then along its columns from the logits it depends on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.types import ShapeRepr

Size = tuple[int, int]
Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, repr=False)
class LogitWindow(ShapeRepr):
    """Mask logits of one object inside a window whose first pixel is (y0, x0) of the frame."""

    logits: Float[Tensor, "h w"]
    y0: int
    x0: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the frame."""
        height, width = self.logits.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def resolve_overlaps(
    windows: Mapping[int, LogitWindow], hw: tuple[int, int], dtype: torch.dtype = torch.int32
) -> Integer[Tensor, "H W"]:
    """Label map of a frame of ``hw`` on the device of the windows, given by object id; there is at least one.

    A pixel goes to the object with the highest positive logit; of equals the object that comes first keeps it. Only
    pixels inside the windows are touched, and nothing waits for the device.
    """
    device = next(iter(windows.values())).logits.device
    best = torch.zeros(hw, device=device)
    labels = torch.zeros(hw, dtype=dtype, device=device)
    for object_id, window in windows.items():
        highest, label = best[window.place], labels[window.place]
        wins = window.logits > highest
        torch.maximum(highest, window.logits, out=highest)
        label.add_((object_id - label).mul_(wins))  # twice as fast as masked_fill_, whose loop branches at every pixel
    return labels


def to_original_size(
    logits: Float[Tensor, "n h w"], padded: Size, resized: Size, original: Size
) -> Float[Tensor, "n H W"]:
    """Logits (N, h, w) covering the padded input -> (N, H, W) of the original image. Sizes are (height, width)."""
    x = F.interpolate(logits[:, None], padded, mode="bilinear", align_corners=False)
    x = x[..., : resized[0], : resized[1]]
    return F.interpolate(x, original, mode="bilinear", align_corners=False)[:, 0]


def upsample_window(
    logits: Shaped[Tensor, "n h w"], padded: Size, resized: Size, original: Size, window: Window
) -> Float[Tensor, "n wh ww"]:
    """What :func:`to_original_size` gives in ``window`` = (x1, y1, x2, y2), right and bottom exclusive.

    Equal up to float32 rounding; the cost grows with the window, not with the image.
    """
    x1, y1, x2, y2 = window
    if not (0 <= x1 < x2 <= original[1] and 0 <= y1 < y2 <= original[0]):
        raise UsageError(f"window {window} does not lie in the image of {original[1]}x{original[0]} pixels")
    low = logits.shape[1:]
    middle = [
        span_of_inputs(first, end, r, o) for first, end, r, o in zip((y1, x1), (y2, x2), resized, original, strict=True)
    ]
    source = [span_of_inputs(*part, size, p) for part, size, p in zip(middle, low, padded, strict=True)]
    x = logits[:, slice(*source[0]), slice(*source[1])].float()
    for axis, (start, stop) in ((1, (x1, x2)), (0, (y1, y2))):  # first along the rows, of which there are fewer now
        x = resize_part(x, axis + 1, *middle[axis], source[axis][0], low[axis], padded[axis])
        x = resize_part(x, axis + 1, start, stop, middle[axis][0], resized[axis], original[axis])
    return x


def span_of_inputs(start: int, stop: int, size_in: int, size_out: int) -> tuple[int, int]:
    """First and end of the inputs that the outputs ``start`` to ``stop`` of a bilinear resize depend on, or more."""
    if size_in == size_out:
        return start, stop
    scale = size_in / size_out
    first, last = ((at + 0.5) * scale - 0.5 for at in (start, stop - 1))
    return max(0, math.floor(first) - 1), min(size_in, math.floor(last) + 3)


def resize_part(x: Tensor, dim: int, start: int, stop: int, first: int, size_in: int, size_out: int) -> Tensor:
    """Outputs ``start`` to ``stop`` of a bilinear resize of one dimension, corners not aligned.

    ``x`` holds at least the inputs that they depend on (:func:`span_of_inputs`), from number ``first`` on.
    """
    if size_in == size_out:
        return x.narrow(dim, start - first, stop - start)
    if dim == x.ndim - 1:  # copying rows is faster than gathering from each of them
        rows = resize_part(x.mT.contiguous(), dim - 1, start, stop, first, size_in, size_out)
        return rows.mT.contiguous()
    low, high, weight = bilinear_taps(torch.arange(start, stop, device=x.device), size_in, size_out)
    low, high = (taps.sub_(first).clamp_(0, x.shape[dim] - 1) for taps in (low, high))
    shape = [-1 if d == dim else 1 for d in range(x.ndim)]
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), weight.view(shape))


def bilinear_taps(
    outputs: Integer[Tensor, " o"], size_in: int, size_out: int
) -> tuple[Integer[Tensor, " o"], Integer[Tensor, " o"], Float[Tensor, " o"]]:
    """For outputs of a bilinear resize, corners not aligned: the two inputs they lie between, and the second's weight.

    Positions are float32, as in the interpolation of torch.
    """
    position = ((outputs.float() + 0.5) * (size_in / size_out) - 0.5).clamp_(0, size_in - 1)
    low = position.long()
    return low, (low + 1).clamp_(max=size_in - 1), position - low
