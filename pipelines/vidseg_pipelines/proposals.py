"""From what a detector sees to prompts for new objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vidseg.masks.boxes import box_iou, mask_box
from vidseg.types import Prompt, Proposal

Mask: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]

MAX_OVERLAP = 0.5
"""A proposal is new when known objects cover no more than this share of it."""
SAME_BOX = 0.5
"""A box is that of a known object with the same label from this intersection over union on: it need not be drawn."""


def new_prompts(
    proposals: Sequence[Proposal],
    frame_index: int,
    *,
    first_id: int,
    known: Sequence[tuple[Mask, str | None]] = (),
    max_objects: int,
    draw: Callable[[Box], Mask] | None = None,
) -> list[tuple[Prompt, str | None]]:
    """Prompts and class names, with ids from ``first_id`` on, for the proposals that are not among the ``known``.

    ``known`` are masks and class names. The new masks are disjoint, from each other and from the known ones: a pixel
    belongs to whom it was given first. ``max_objects`` counts the new objects. ``draw`` gives the masks of proposals
    that have a box alone.
    """
    prompts: list[tuple[Prompt, str | None]] = []
    taken = np.any([mask for mask, _ in known], axis=0) if known else None
    boxes = [(mask_box(mask), label) for mask, label in known]
    for proposal in proposals:
        if len(prompts) >= max_objects:
            break
        whole = proposal.mask
        if whole is None:
            assert proposal.box is not None and draw is not None
            box = np.array(proposal.box, np.float32)
            same = [other for other, label in boxes if label is not None and label == proposal.label]
            if same and box_iou(box[None], np.stack(same)).max() >= SAME_BOX:
                continue
            whole = draw(proposal.box)
            boxes.append((box, proposal.label))
        mask = whole if taken is None else whole & ~taken
        if not mask.any() or mask.sum() < (1 - MAX_OVERLAP) * whole.sum():
            continue
        prompts.append((Prompt(frame_index, first_id + len(prompts), mask=mask), proposal.label))
        taken = mask if taken is None else taken | mask
    return prompts
