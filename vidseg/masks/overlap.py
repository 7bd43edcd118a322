"""Several objects that claim one pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from vidseg.errors import OutputError, UsageError
from vidseg.masks.rle import decode_window
from vidseg.types import FrameMasks, ShapeRepr


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
        highest = best[window.place]
        wins = window.logits > highest
        highest.copy_(torch.where(wins, window.logits, highest))
        labels[window.place].masked_fill_(wins, object_id)
    return labels


def disjoint_masks(masks: Mapping[int, npt.NDArray[np.bool_]], frame_index: int) -> dict[int, npt.NDArray[np.bool_]]:
    """Given masks (H, W) by object id without overlaps: the smaller is in front, of equals the lower id.

    Raises:
        UsageError: nothing is left of an object of frame ``frame_index``, as of equal masks.
    """
    taken: npt.NDArray[np.bool_] | None = None
    result: dict[int, npt.NDArray[np.bool_]] = {}
    for i in sorted(masks, key=lambda i: (int(masks[i].sum()), i)):
        mask = masks[i] if taken is None else masks[i] & ~taken
        if not mask.any():
            front = ", ".join(str(k) for k in sorted(result) if (masks[i] & result[k]).any())
            raise UsageError(
                f"object {i} on frame {frame_index}: its whole mask belongs to object {front} too; name a thing once"
            )
        result[i] = mask
        taken = mask if taken is None else taken | mask
    return {i: result[i] for i in masks}


def label_map(masks: FrameMasks, height: int, width: int) -> npt.NDArray[np.int32]:
    """Object id of every pixel, 0 for background; where masks overlap the later object covers the earlier.

    Raises:
        OutputError: a mask has another size.
    """
    labels = np.zeros((height, width), np.int32)
    for object_id, rle in zip(masks.ids, masks.rles, strict=True):
        if (rle.height, rle.width) != (height, width):
            raise OutputError(f"mask of {rle.width}x{rle.height}, the frame is {width}x{height}")
        window, y0, x0 = decode_window(rle)
        labels[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]][window] = object_id
    return labels
