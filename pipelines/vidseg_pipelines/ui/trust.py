"""How far the result of a frame can be trusted, and which frame to look at next.

From what the journal has: the tracker's score, and how much an object's area changes from one frame to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

from vidseg_pipelines.ui.results import Facts

Fact = tuple[int, float]
"""Area in pixels and score of an object on a frame."""

ABSENT, SURE = 0, 255
"""Marks of a frame without the object, and of one that the user drew."""

_GONE = 0.55
"""Doubt about a frame on which an object is not seen any more."""
_WORTH = 0.15
"""Least doubt of a frame that is worth a look."""
LATER = 12
"""Frames over which a slow drift is seen."""
_FREE_LATER = 1.35
_FREE = 1.15  # areas may change by this factor from frame to frame without any doubt


def doubt(before: Fact | None, now: Fact | None, earlier: Fact | None = None) -> float:
    """From 0 (sure) to 1 about one object, from its (area, score) on the frame before and now; None: not there.

    ``earlier``: the same :data:`LATER` frames before, from which a mask may have drifted slowly.
    """
    if now is None:
        return _GONE if before is not None else 0.0
    sure = min(1.0, max(0.0, now[1]))
    for other, free in ((before, _FREE), (earlier, _FREE_LATER)):
        if other is not None and (ratio := _ratio(other, now)) > free:
            sure *= (free / ratio) ** 1.5
    return 1 - sure


def mark(before: Fact | None, now: Fact | None, earlier: Fact | None = None, *, drawn: bool) -> int:
    """What the timeline shows: 0 absent, 1 to 254 from unsure to sure, 255 drawn by the user."""
    if now is None:
        return ABSENT
    return SURE if drawn else 1 + round(253 * (1 - doubt(before, now, earlier)))


def usual(facts: Mapping[int, Facts], frame: int) -> Facts:
    """What objects were like :data:`LATER` frames before: the fact with the median area of the frames around there."""
    rows = [facts[f] for f in range(frame - LATER - 2, frame - LATER + 3) if f in facts]
    ids = {i for row in rows for i in row}
    return {i: sorted(row[i] for row in rows if i in row)[sum(i in row for row in rows) // 2] for i in ids}


def _ratio(one: Fact, other: Fact) -> float:
    return max(one[0], other[0], 1) / max(1, min(one[0], other[0]))


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
        before, now, earlier = facts[last], facts[frame], usual(facts, frame)
        worst = max(((doubt(before.get(i), now.get(i), earlier.get(i)), i) for i in {*before, *now}), default=(0.0, 0))
        if worst[0] > _WORTH:
            i = worst[1]
            found.append(Hint(frame, i, worst[0], _why(name(i), before.get(i), now.get(i), earlier.get(i))))
    chosen: list[Hint] = []
    busy = [*drawn, *seen]
    for hint in sorted(found, key=lambda h: (-h.doubt, h.frame)):
        if all(abs(hint.frame - f) > apart for f in busy):
            chosen.append(hint)
            busy.append(hint.frame)
        if len(chosen) == count:
            break
    return chosen


def _why(name: str, before: Fact | None, now: Fact | None, earlier: Fact | None) -> str:
    if now is None:
        return f"{name} disappears here"
    for other, least, span in ((before, 1.3, "one frame to the next"), (earlier, 1.5, f"{LATER} frames before")):
        if other is not None and _ratio(other, now) > least:
            change = now[0] / max(1, other[0])
            return f"{name} {'grows' if change > 1 else 'shrinks'} by {abs(change - 1):.0%} from {span}"
    return f"the tracker is unsure of {name} (score {now[1]:.2f})"
