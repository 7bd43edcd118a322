"""Several objects that claim one pixel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError


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


def in_front(
    masks: Mapping[int, npt.NDArray[np.bool_]], object_id: int, mask: npt.NDArray[np.bool_]
) -> dict[int, npt.NDArray[np.bool_]]:
    """All masks (H, W) with a new one for an object, which takes its pixels from the others."""
    return {**{i: other & ~mask for i, other in masks.items() if i != object_id}, object_id: mask}
