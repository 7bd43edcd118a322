"""How far the result of a frame can be trusted, and where to look next: what the journal says, for the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from vidseg.masks.suggestions import WORTH, Judged, Suggestions
from vidseg.masks.trust import Signals, area_signals, reason, trust
from vidseg_pipelines.web.results import Fact, Facts, Objects

SURE = 255
"""Mark of an object that the user drew on the frame."""


def mark(before: Fact | None, now: Fact, *, drawn: bool) -> int:
    """What the timeline shows: 1 to 254 from unsure to sure, 255 drawn by the user, here or as a prompt of the run."""
    sure = _trust(before, now)
    return SURE if drawn or sure == 1 else 1 + round(253 * sure)


@dataclass(frozen=True)
class Hint:
    """A frame worth a look, and why."""

    frame: int
    object_id: int
    doubt: float
    why: str


def hints(
    facts: Mapping[int, Facts],
    objects: Callable[[int], Objects],
    drawn: Collection[int],
    seen: Collection[int],
    name: Callable[[int], str],
    *,
    count: int = 8,
) -> list[Hint]:
    """Doubtful frames, the one that helps most first and apart in time; not near those drawn or seen already.

    Args:
        facts: by frame.
        objects: gives the objects of a frame as the journal has them.
        drawn, seen: frames.
        name: of an object in sentences.
        count: most hints.
    """
    suggestions, before = Suggestions(), Facts()
    for frame in sorted(facts):
        judged = (
            Judged(i, _trust(before.get(i), now), frame in drawn, partial(_why, objects, frame, i, now, before.get(i)))
            for i, now in facts[frame].items()
        )
        suggestions.add_judged(frame, 0.0, judged)
        before = facts[frame]
    found = [s for s in suggestions.best(count, avoid=(*drawn, *seen)) if 1 - s.trust >= WORTH]
    return [Hint(s.frame, s.object_id, 1 - s.trust, f"{name(s.object_id)}: {s.reason}") for s in found]


def _trust(before: Fact | None, now: Fact) -> float:
    if now.trust is not None:
        return now.trust
    return trust(area_signals(now.area, before.area if before else None), now.score)


def _why(objects: Callable[[int], Objects], frame: int, object_id: int, now: Fact, before: Fact | None) -> str:
    for one in objects(frame):
        if one["id"] == object_id and "signals" in one:
            return reason(Signals.from_dict(one["signals"]), now.score)
    return reason(area_signals(now.area, before.area if before else None), now.score)
