"""How far the result of a frame can be trusted, and which frame to look at next.

From what the journal has: the tracker's score, and how much an object's area changes from one frame to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

from vidseg_pipelines.ui.results import Facts

ABSENT, SURE = 0, 255
"""Marks of a frame without the object, and of one that the user drew."""

_GONE = 0.55
"""Doubt about a frame on which an object is not seen any more."""
_WORTH = 0.15
"""Least doubt of a frame that is worth a look."""
_FREE = 1.15  # areas may change by this factor from frame to frame without any doubt


def doubt(before: tuple[int, float] | None, now: tuple[int, float] | None) -> float:
    """From 0 (sure) to 1 about one object, from its (area, score) on the frame before and now; None: not there."""
    if now is None:
        return _GONE if before is not None else 0.0
    area, score = now
    unsure = 1 - min(1.0, max(0.0, score))
    if before is None or not before[0] or not area:
        return unsure
    ratio = max(area / before[0], before[0] / area)
    return 1 - (1 - unsure) * min(1.0, (_FREE / ratio) ** 1.5 if ratio > _FREE else 1.0)


def mark(before: tuple[int, float] | None, now: tuple[int, float] | None, *, drawn: bool) -> int:
    """What the timeline shows: 0 absent, 1 to 254 from unsure to sure, 255 drawn by the user."""
    if now is None:
        return ABSENT
    return SURE if drawn else 1 + round(253 * (1 - doubt(before, now)))


@dataclass(frozen=True)
class Hint:
    """A frame worth a look, and why."""

    frame: int
    object_id: int
    doubt: float
    why: str


def hints(
    facts: Mapping[int, Facts],
    drawn: Collection[int],
    seen: Collection[int],
    name: Callable[[int], str],
    *,
    count: int = 8,
) -> list[Hint]:
    """Frames to look at, the most doubtful first and apart in time; not near those drawn or seen already."""
    frames = sorted(facts)
    if len(frames) < 2:
        return []
    apart = max(2, len(frames) // 40)
    found: list[Hint] = []
    for last, frame in pairwise(frames):
        before, now = facts[last], facts[frame]
        worst = max(((doubt(before.get(i), now.get(i)), i) for i in {*before, *now}), default=(0.0, 0))
        if worst[0] > _WORTH:
            found.append(Hint(frame, worst[1], worst[0], _why(name(worst[1]), before.get(worst[1]), now.get(worst[1]))))
    chosen: list[Hint] = []
    busy = [*drawn, *seen]
    for hint in sorted(found, key=lambda h: (-h.doubt, h.frame)):
        if all(abs(hint.frame - f) > apart for f in busy):
            chosen.append(hint)
            busy.append(hint.frame)
        if len(chosen) == count:
            break
    return chosen


def _why(name: str, before: tuple[int, float] | None, now: tuple[int, float] | None) -> str:
    if now is None:
        return f"{name} disappears here"
    if before is not None and before[0] and now[0]:
        change = now[0] / before[0]
        if change > 1.3 or change < 1 / 1.3:
            return f"{name} {'grows' if change > 1 else 'shrinks'} by {abs(change - 1):.0%} from one frame to the next"
    return f"the tracker is unsure of {name} (score {now[1]:.2f})"
