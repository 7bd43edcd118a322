"""Counting damage so that a broken file gives a few lines, not thousands."""

from __future__ import annotations

_SHOWN = 8


class Damage:
    """Counts kinds of damage with the frames near which they were seen."""

    def __init__(self, warnings: list[str]) -> None:
        """``warnings`` receives one line per kind when :meth:`report` is called."""
        self.position = 0
        """Index of the frame being read."""
        self._warnings = warnings
        self._places: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """Count one more ``kind`` at the present position."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        places = self._places.setdefault(kind, [])
        if len(places) <= _SHOWN and self.position not in places:
            places.append(self.position)

    def report(self) -> None:
        """Write one line per kind and forget what was counted."""
        for kind, count in self._counts.items():
            places = [str(place) for place in self._places[kind]]
            shown = ", ".join(places[:_SHOWN] + ["..."] * (len(places) > _SHOWN))
            self._warnings.append(f"{count} {kind} (near frame {shown})")
        self._counts.clear()
        self._places.clear()
