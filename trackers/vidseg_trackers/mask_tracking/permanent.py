"""Corrected frames are permanent memory: never evicted, and bounded in number by one rule for all trackers."""

from __future__ import annotations

from collections.abc import Sequence


def permanent_frames(corrected: Sequence[int], limit: int) -> list[int]:
    """Of the frames that the user gave or corrected, oldest first, those that stay: the first and the newest.

    Args:
        corrected: distinct numbers of frames.
        limit: most frames, at least 1.
    """
    if len(corrected) <= limit:
        return list(corrected)
    return [corrected[0], *corrected[len(corrected) - limit + 1 :]]
