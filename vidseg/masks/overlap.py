"""Several objects that claim one pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidseg.errors import OutputError, UsageError
from vidseg.masks.rle import decode_window
from vidseg.types import FrameMasks, ShapeRepr


@dataclass(frozen=True, slots=True, repr=False)
class LogitWindow(ShapeRepr):
    """Mask logits float (h, w) of one object inside a window whose first pixel is (y0, x0) of the frame."""

    logits: npt.NDArray[np.float32]
    y0: int
    x0: int


def resolve_overlaps(
    windows: Sequence[LogitWindow], height: int, width: int, *, threshold: float = 0.0
) -> list[npt.NDArray[np.bool_]]:
    """Disjoint masks, one bool (h, w) per window: a pixel goes to the object with the highest logit over ``threshold``.

    On equal logits the object that comes first keeps the pixel. Only pixels inside the windows are touched.
    """
    best = np.full((height, width), threshold, np.float32)
    owner = np.full((height, width), -1, np.int32)
    for number, window in enumerate(windows):
        place = _place(window)
        wins = window.logits > best[place]
        np.copyto(best[place], window.logits, where=wins)
        owner[place][wins] = number
    return [owner[_place(window)] == number for number, window in enumerate(windows)]


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


def _place(window: LogitWindow) -> tuple[slice, slice]:
    h, w = window.logits.shape
    return slice(window.y0, window.y0 + h), slice(window.x0, window.x0 + w)
