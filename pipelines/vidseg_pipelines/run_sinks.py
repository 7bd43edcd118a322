"""Small sinks and lists that a run keeps its books with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidseg.masks.frame_masks import FrameMasks, Sink
from vidseg.types import Frame, Gap

MAX_WARNINGS = 50
"""Different warnings that a run keeps."""


@dataclass
class CountingSink:
    """A sink that counts."""

    frames: int = 0
    objects: frozenset[int] = frozenset()
    gap: Gap = field(default_factory=Gap)

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Count a result."""
        self.frames += 1
        self.gap += masks.gap
        self.objects |= frozenset(masks.ids)

    def close(self) -> None:
        """Nothing is open."""


class NewResults:
    """Sinks that get what the journal does not hold yet: the results from the frame ``first`` on."""

    def __init__(self, sinks: Sequence[Sink], first: int) -> None:
        self._sinks, self._first = sinks, first

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Pass it on if it is new."""
        if frame.index >= self._first:
            for sink in self._sinks:
                sink.write(frame, masks)

    def close(self) -> None:
        """Nothing is open here."""


def bounded(lines: Sequence[str]) -> list[str]:
    """Equal lines as one with their count, and at most :data:`MAX_WARNINGS` of them."""
    counts = Counter(lines)
    texts = [line if count == 1 else f"{line} ({count} times)" for line, count in counts.items()]
    if len(texts) <= MAX_WARNINGS:
        return texts
    return [*texts[: MAX_WARNINGS - 1], f"... and {len(texts) - MAX_WARNINGS + 1} more"]
