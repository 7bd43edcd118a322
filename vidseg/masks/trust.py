"""Whether the mask of an object on a frame can be trusted: what was measured, and one number of it.

The pipeline measures :class:`Signals` while it computes a frame, and the journal keeps them. Who shows or uses how
sure a mask is, calls :func:`trust`, and :func:`reason` for the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

DIGITS = 4
"""Decimal places of signals."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What speaks for or against one mask. None: not known, such as agreement where nothing was drawn again.

    The reference of an object is the last frame on which the user gave or corrected it; of an object that the user
    never touched, the first frame on which it was seen.
    """

    certainty: float | None = None
    """Mean of abs(2p - 1) over the cells around the outline, p the tracker's probability: 0 unsure, 1 sure."""
    tracker_iou: float | None = None
    """IoU of the tracker's mask and the redrawn one, 0..1."""
    hq_iou: float | None = None
    """IoU of SAM's own mask and the one with the HQ correction, 0..1."""
    area_change: float | None = None
    """Area over that on the reference, > 0."""
    box_change: float | None = None
    """1 - IoU of the box and that on the reference, put on one centre: 0 the same size and shape, up to 1."""
    look_change: float | None = None
    """Distance (Hellinger) of the colours and those on the reference: 0 the same, 1 no colour in common."""
    area_jump: float | None = None
    """Area over that on the frame before, > 0; None where the object was not on it."""
    since: int | None = None
    """Frames since the user last gave or corrected the object; 0 on that frame; None: never."""
    backward: bool | None = None
    """Whether the object was followed backward to this frame, from a later one, in a run that goes both ways."""

    def __post_init__(self) -> None:
        """Refuse what cannot have been measured.

        Raises:
            ValueError: a value outside of its range.
        """
        for name in ("certainty", "tracker_iou", "hq_iou", "box_change", "look_change"):
            _check(name, getattr(self, name), "a number from 0 to 1", lambda v: 0 <= v <= 1)
        for name in ("area_change", "area_jump"):
            _check(name, getattr(self, name), "a positive number", lambda v: 0 < v < math.inf)
        if self.backward not in (None, True, False):
            raise ValueError(f"signal backward {str(self.backward)[:40]!r}: true or false expected")
        _check("since", self.since, "a whole number from 0 on", lambda v: isinstance(v, int) and v >= 0)

    @property
    def corrected(self) -> bool:
        """The mask is what the user said on this very frame."""
        return self.since == 0

    def to_dict(self) -> dict[str, float]:
        """The known ones by name, in the order of the fields."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Signals:
        """What :meth:`to_dict` gave; names of later versions are left out.

        Raises:
            ValueError: values that are no signals.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"signals {str(values)[:40]!r}: an object expected")
        names = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})  # type: ignore[arg-type]


def _check(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
        raise ValueError(f"signal {name} {str(value)[:40]!r}: {expected} expected")


def rounded(value: float) -> float:
    """A measured value as signals hold it."""
    return round(value, DIGITS)


def ratio(now: float, then: float) -> float:
    """``now`` over ``then``, both positive, as signals hold it: never 0."""
    return max(rounded(now / then), 10**-DIGITS)


def area_signals(area: int, before: int | None) -> Signals:
    """What areas in pixels alone say, where nothing else was measured: that on a frame, and that on the one before."""
    return Signals(area_jump=ratio(area, before) if before and area else None)


class _Term(NamedTuple):
    """A measure of doubt, its weight in the logistic function, and its value on masks that are good."""

    doubt: Callable[[Signals, float], float | None]
    weight: float
    usual: float
    words: Callable[[Signals, float], str]


def _octaves(value: float | None) -> float | None:
    return None if value is None else min(2.0, abs(math.log2(value)))


def _one_minus(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _grown(value: float | None, than: str) -> str:
    value = 1.0 if value is None else value
    return f"{value - 1:.0%} larger than {than}" if value > 1 else f"{1 - value:.0%} smaller than {than}"


_REFERENCE = "when it was last sure"
_BIAS = 2.1
_TERMS = (
    _Term(lambda s, score: 1 - score, 1.9, 0.06, lambda s, score: f"the tracker is unsure (score {score:.2f})"),
    _Term(
        lambda s, _: _one_minus(s.certainty),
        1.9,
        0.19,
        lambda s, _: f"the tracker is unsure of the outline (certainty {s.certainty:.2f})",
    ),
    _Term(
        lambda s, _: _one_minus(s.tracker_iou),
        1.3,
        0.07,
        lambda s, _: f"tracker and HQ-SAM disagree (IoU {s.tracker_iou:.2f})",
    ),
    _Term(lambda s, _: _one_minus(s.hq_iou), 1.7, 0.04, lambda s, _: f"SAM and HQ-SAM disagree (IoU {s.hq_iou:.2f})"),
    _Term(lambda s, _: s.box_change, 0.2, 0.2, lambda s, _: f"its size and shape are not those {_REFERENCE}"),
    _Term(lambda s, _: _octaves(s.area_change), 0.1, 0.3, lambda s, _: _grown(s.area_change, _REFERENCE)),
    _Term(lambda s, _: s.look_change, 0.2, 0.15, lambda s, _: f"its colours are not those {_REFERENCE}"),
    _Term(lambda s, _: _octaves(s.area_jump), 1.0, 0.05, lambda s, _: _grown(s.area_jump, "one frame before")),
)
"""Bias, weights (not below 0) and usual values were fitted to J&F, on clips that are not measured on. The fit gave the
last three no weight: theirs are small, and count where a mask changes suddenly or nothing else is known."""


def trust(signals: Signals | None, score: float) -> float:
    """How far a mask can be trusted, from 0 to 1; 1 is what the user gave or corrected on this frame.

    The logistic function of a weighted sum of the signals. One that is not known counts as usual.

    Args:
        signals: None where nothing was measured: the score decides alone.
        score: the tracker's score of the object, 0..1.
    """
    if signals is not None and signals.corrected:
        return 1.0
    total = sum(amount for amount, _ in _amounts(signals, score))
    return 1 / (1 + math.exp(min(50.0, max(-50.0, total - _BIAS))))


def reason(signals: Signals | None, score: float) -> str:
    """In words what speaks most against a mask; they follow the name of the object and a colon."""
    signals = signals or Signals()
    _, term = max(_amounts(signals, score), key=lambda pair: pair[0])
    return term.words(signals, score)


def _amounts(signals: Signals | None, score: float) -> list[tuple[float, _Term]]:
    signals = signals or Signals()
    known = ((term.doubt(signals, min(1.0, max(0.0, score))), term) for term in _TERMS)
    return [(term.weight * (value - term.usual), term) for value, term in known if value is not None]
