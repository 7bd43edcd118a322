"""Counting what happens again and again, so that a broken input gives a few lines, not thousands."""

from __future__ import annotations

_SHOWN = 8
_KINDS = 40
_OTHER = "other faults"


class Damage:
    """Counts kinds of damage with the places where they were seen; each kind has one line, which is always true.

    Beyond a limit, further kinds share one line.
    """

    def __init__(self, lines: list[str], form: str = "{count} {kind} (near frame {places})") -> None:
        """``lines`` gets one line per kind; it may be appended to by others, but not shortened."""
        self.position = 0
        """Index of the frame being read: the place where none is given."""
        self._lines, self._form = lines, form
        self._rows: dict[str, int] = {}
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str, place: str | None = None) -> None:
        """Count one more ``kind``."""
        place = str(self.position) if place is None else place
        if kind not in self._rows and len(self._rows) >= _KINDS:
            kind = _OTHER
        if kind not in self._rows:
            self._rows[kind] = len(self._lines)
            self._lines.append("")
        self._counts[kind] = self._counts.get(kind, 0) + 1
        places = self._places.setdefault(kind, [])
        if len(places) <= _SHOWN and place not in places:
            places.append(place)
        shown = ", ".join(places[:_SHOWN] + ["..."] * (len(places) > _SHOWN))
        self._lines[self._rows[kind]] = self._form.format(count=self._counts[kind], kind=kind, places=shown)
