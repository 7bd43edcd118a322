"""Where to look next: the frames whose correction would help most, from how far the masks of a run can be trusted.

A correction lasts: the tracker remembers it, and what would be wrong on the next frames becomes right too. So the gain
of correcting an object on a frame is the doubt there, once for every frame on which it goes on, later frames counting
less; and a tracker can be wrong and sure of it, so the time since the last corrected frame counts as well. The frame
with the largest gain is chosen, what it explains is taken away, and so on; the most doubtful is named first. (That a
memory is served best by a few well chosen frames is the idea of XMem++, Bekuzarov et al. 2023.)

Memory is bounded: of long videos every second, fourth ... group of frames is kept by its most doubtful frame.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import area
from vidseg.masks.trust import area_signals, reason, trust

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

FRAMES, OBJECTS = 4096, 16
"""Most frames that are kept, and most objects of each: the most doubtful ones."""
_LASTING = 4
"""Frames after which a correction counts a third."""
_UNSEEN = 12
"""What it counts, in frames of full doubt, that a frame lies in time between those corrected, whatever was measured."""
_TOGETHER = 3
"""Frames that are chosen together, at least; the most doubtful of them are named first."""
_LOST, _LOST_FRAMES = 0.4, 30
"""Doubt about a frame from which an object is missing, for so many frames: it may have left, or been lost."""
_USUAL = 0.12
"""Doubt about masks that are good, which no correction takes away."""
WORTH = 0.2
"""Doubt (1 - trust) from which a frame stands out."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A frame worth a look: the object on it whose correction helps most, how far its mask can be trusted, and why."""

    frame: int
    time_s: float
    object_id: int
    label: str | None
    trust: float
    """0..1; of an object that is missing, that it is right to be."""
    reason: str
    """In words, without the object's name."""

    @property
    def name(self) -> str:
        """What the object is called."""
        return self.label or f"object {self.object_id}"

    def __str__(self) -> str:
        """One line."""
        return f"frame {self.frame} ({self.time_s:.2f} s), trust {self.trust:.2f}: {self.name}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """For json: frame, time_s, id, label, trust, reason; the reason names the object."""
        values = {"frame": self.frame, "time_s": self.time_s, "id": self.object_id, "label": self.label}
        return values | {"trust": round(self.trust, 4), "reason": f"{self.name}: {self.reason}"}


class Judged(NamedTuple):
    """An object on a frame: how far its mask can be trusted (0..1), if the user corrected it there, and the reason."""

    object_id: int
    trust: float
    corrected: bool
    reason: Callable[[], str]


class _Row(NamedTuple):
    frame: int
    time_s: float
    looks: Mapping[int, Judged]
    corrected: frozenset[int]

    def doubt(self, object_id: int) -> float:
        """Doubt about an object beyond what is usual, 0..1; 0 where it was corrected."""
        there = object_id in self.looks and object_id not in self.corrected
        return max(0.0, 1 - self.looks[object_id].trust - _USUAL) if there else 0.0


def least_distance(total: int) -> int:
    """Frames that suggested ones lie apart at least: a tenth of the ``total``, but no more than about a second."""
    return max(2, min(25, total // 10))


class Suggestions:
    """Takes the results of a video in order, and names frames to correct."""

    def __init__(self, removals: Mapping[int, int] | None = None) -> None:
        """``removals``: object id to the frame from which on the user wants it no more, so that nobody misses it."""
        self._removals = dict(removals or {})
        self._rows: list[_Row] = []
        self._group = 1  # frames per row
        self._count = 0
        self._areas: dict[int, int] = {}
        self._missing: dict[int, int] = {}  # id: frames since it was seen
        self._labels: dict[int, str] = {}

    def add(self, masks: FrameMasks) -> None:
        """Take the result of the next frame; one that is not later than the last begins anew from there."""
        self._labels |= {i: label for i, label in zip(masks.ids, masks.labels, strict=True) if label is not None}
        known = zip(masks.ids, masks.scores.tolist(), masks.signals, masks.rles, strict=True)
        areas, judged = {}, []
        for i, score, signals, rle in known:
            if signals is None:  # of an earlier version: what the masks say
                areas[i] = area(rle)
                signals = area_signals(areas[i], self._areas.get(i))
            judged.append(Judged(i, trust(signals, score), signals.corrected, partial(reason, signals, score)))
        self.add_judged(masks.frame_index, masks.time_s, judged)
        self._areas = areas

    def add_judged(self, frame: int, time_s: float, objects: Iterable[Judged]) -> None:
        """The same, of the visible objects of a frame."""
        if self._rows and frame <= self._rows[-1].frame:
            self._rows = [row for row in self._rows if row.frame < frame]
            self._areas, self._missing = {}, {}
            self._removals = {i: removed for i, removed in self._removals.items() if removed < frame}
        looks = {one.object_id: one for one in objects}
        known = (i for i in self._missing if frame < self._removals.get(i, frame + 1))
        self._missing = {i: self._missing[i] + 1 for i in known if self._missing[i] < _LOST_FRAMES}
        self._missing |= dict.fromkeys(looks, 0)
        corrected = frozenset(i for i, one in looks.items() if one.corrected)
        looks |= {i: Judged(i, 1 - _LOST, False, _lost) for i, frames in self._missing.items() if frames}
        worst = sorted(looks, key=lambda i: (looks[i].trust, i))[:OBJECTS]
        self._append(_Row(frame, time_s, {i: looks[i] for i in worst}, corrected))

    def forget(self, object_id: int, frame: int) -> None:
        """From a frame on the user wants an object no more, until frames before it come again."""
        self._removals[object_id] = frame
        self._missing.pop(object_id, None)

    def with_frame(self, masks: FrameMasks) -> Suggestions:
        """A copy that has taken one more frame."""
        other = copy.copy(self)
        other._rows, other._labels = list(self._rows), dict(self._labels)
        other.add(masks)
        return other

    def best(self, count: int, avoid: Iterable[int] = ()) -> list[Suggestion]:
        """``count`` frames, the most doubtful first; fewer where no more lie apart.

        None is near a corrected frame or one of ``avoid``.

        Raises:
            UsageError: ``count`` below 1.
        """
        if count < 1:
            raise UsageError(f"suggest {count} frames: expected at least 1")
        ids = sorted({i for row in self._rows for i in row.looks})
        if not ids:
            return []
        frames = np.array([row.frame for row in self._rows])
        doubts = np.array([[row.doubt(i) for row in self._rows] for i in ids])
        corrected = [row.frame for row in self._rows if row.corrected]
        apart = least_distance(int(frames[-1] - frames[0]) + 1)
        free = np.array([bool(row.looks) for row in self._rows])
        for frame in (*corrected, *avoid):
            free &= abs(frames - frame) >= apart
        first, places = _gains(doubts, frames), list[int]()
        while len(places) < max(count, _TOGETHER) and free.any():
            gains = _gains(doubts, frames).sum(0) + _UNSEEN * len(ids) * _coverage(frames, corrected)
            place = int(np.where(free, gains, -1.0).argmax())
            places.append(place)
            doubts = _explained(doubts, frames, place)
            corrected.append(int(frames[place]))
            free &= abs(frames - frames[place]) >= apart
        places.sort(key=lambda place: -first[:, place].sum())
        return [self._suggestion(self._rows[place], first[:, place], ids) for place in places[:count]]

    def _append(self, row: _Row) -> None:
        if self._count % self._group == 0:
            self._rows.append(row)
        else:
            self._rows[-1] = _worse(self._rows[-1], row)
        self._count += 1
        if len(self._rows) > FRAMES:
            pairs = zip(self._rows[::2], [*self._rows[1::2], None], strict=False)
            self._rows = [one if other is None else _worse(one, other) for one, other in pairs]
            self._group *= 2

    def _suggestion(self, row: _Row, gains: Floats, ids: Sequence[int]) -> Suggestion:
        least = min(row.looks, key=lambda i: row.looks[i].trust)
        look = row.looks.get(ids[int(gains.argmax())], row.looks[least])
        why = look.reason() if 1 - look.trust >= WORTH else _FAR
        return Suggestion(row.frame, row.time_s, look.object_id, self._labels.get(look.object_id), look.trust, why)


_FAR = "far from every corrected frame"


def _lost() -> str:
    return "is not seen any more"


def _worse(one: _Row, other: _Row) -> _Row:
    """The more doubtful row of two, which also says what was corrected on either."""
    worst = max(one, other, key=lambda row: sum(map(row.doubt, row.looks)))
    return worst._replace(corrected=one.corrected | other.corrected)


def _coverage(frames: Ints, corrected: Sequence[int]) -> Floats:
    """How well frames divide the time between corrected ones, in shares of the whole: 1/4 in the middle of it all."""
    first, last = int(frames[0]), int(frames[-1]) + 1
    marks = np.array(sorted({first, *corrected, last}))
    after = np.searchsorted(marks, frames, side="right")
    before, following = marks[after - 1], marks[np.minimum(after, len(marks) - 1)]
    covered: Floats = (frames - before) * (following - frames) / (last - first) ** 2
    return covered


def _gains(doubts: Floats, frames: Ints) -> Floats:
    """What correcting an object on a frame explains, (N, T): the doubt there, for as long as it goes on."""
    gains, lasting = doubts.copy(), doubts
    for step in range(1, doubts.shape[1]):
        away = frames[step:] - frames[:-step]
        lasting = np.minimum(lasting[:, :-1], doubts[:, step:])
        if away.min() > 3 * _LASTING or not lasting.any():
            break
        gains[:, :-step] += lasting * np.exp(-away / _LASTING)
    return gains


def _explained(doubts: Floats, frames: Ints, place: int) -> Floats:
    """The doubts that are left when all objects are corrected on a frame."""
    lasting = np.minimum.accumulate(doubts[:, place:], axis=1)
    rest = doubts.copy()
    rest[:, place:] -= lasting * np.exp(-(frames[place:] - frames[place]) / _LASTING)
    return rest
