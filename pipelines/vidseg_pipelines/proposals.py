"""From what a detector sees to prompts for new objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vidseg.types import Prompt, Proposal

MAX_OVERLAP = 0.5
"""A proposal is new when known objects cover no more than this share of it."""


def new_prompts(
    proposals: Sequence[Proposal],
    frame_index: int,
    *,
    first_id: int,
    known: Sequence[npt.NDArray[np.bool_]] = (),
    max_objects: int,
) -> list[tuple[Prompt, str | None]]:
    """Prompts and class names, with ids from ``first_id`` on, for the proposals that are not among the ``known`` masks.

    The masks are disjoint, from each other and from the known ones: a pixel belongs to whom it was given first.
    ``max_objects`` counts the new objects.
    """
    prompts: list[tuple[Prompt, str | None]] = []
    taken = np.any(known, axis=0) if len(known) else None
    for proposal in proposals:
        if len(prompts) >= max_objects:
            break
        mask = proposal.mask if taken is None else proposal.mask & ~taken
        if not mask.any() or mask.sum() < (1 - MAX_OVERLAP) * proposal.mask.sum():
            continue
        prompts.append((Prompt(frame_index, first_id + len(prompts), mask=mask), proposal.label))
        taken = mask if taken is None else taken | mask
    return prompts
