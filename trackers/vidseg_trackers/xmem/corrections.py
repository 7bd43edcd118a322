"""When objects were given and corrected, and which rows of the memory therefore do not count for them.

A correction that changes much says that an object was followed wrongly, and nothing of the others. What is in memory
from before it no longer counts for that object, except the frames on which it was given or corrected itself. A frame
that is in memory for the sake of a correction counts for the corrected objects alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vidseg.types import State
from vidseg_trackers.mask_tracking.permanent import permanent_frames

Hidden: TypeAlias = tuple[int, tuple[int, ...], tuple[int, ...]]
"""What does not count for an object: all from before a time, except these times; and those times."""
NOTHING: Hidden = (0, (), ())


class Corrections:
    """Times at which objects were given and corrected, and whom the frames of these times count for."""

    def __init__(self, limit: int, *, forget: bool) -> None:
        """``limit``: most times of an object; ``forget``: what came before a correction does not count."""
        self._limit, self._forget = limit, forget
        self.prompted: dict[int, list[int]] = {}
        """Object to the times at which it was given or corrected."""
        self.anew: dict[int, int] = {}
        """Object to the time of the last correction that changed much."""
        self.private: dict[int, list[int]] = {}
        """Time to the objects that it counts for, where it does not for all."""

    @property
    def permanent(self) -> list[int]:
        """The times whose frames stay."""
        return permanent_frames(sorted({t for times in self.prompted.values() for t in times}), self._limit)

    def add(self, ids: Collection[int], time: int, anew: Collection[int], only: Collection[int] | None) -> None:
        """Objects are given or corrected; some begin ``anew``. ``only``: whom the time counts for, if not for all."""
        for i in ids:
            self.prompted[i] = permanent_frames([*self.prompted.get(i, ()), time], self._limit)
        self.anew |= dict.fromkeys(anew if self._forget else (), time)
        if only is not None:
            self.private[time] = list(only)

    def forget(self, i: int) -> None:
        """An object is gone."""
        self.prompted.pop(i, None)
        self.anew.pop(i, None)

    def keep(self, times: Collection[int]) -> None:
        """Nothing else is in memory any more."""
        there = set(times)
        self.private = {time: ids for time, ids in self.private.items() if time in there}

    def hidden_from(self, i: int) -> Hidden:
        """What does not count for an object."""
        foreign = tuple(time for time, ids in self.private.items() if i not in ids)
        return (self.anew[i], tuple(self.prompted[i]), foreign) if i in self.anew else (0, (), foreign)

    def rows(self, hidden: Hidden, time: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        """Which rows of these times do not count."""
        first, *lists = hidden
        own, foreign = (torch.tensor(times, dtype=time.dtype, device=time.device) for times in lists)
        return torch.isin(time, foreign) | ((time < first) & ~torch.isin(time, own))

    def state_dict(self) -> State:
        """All of it as tensors."""
        state: State = {f"prompted.{i}": torch.tensor(times) for i, times in self.prompted.items()}
        state |= {f"anew.{i}": time for i, time in self.anew.items()}
        return state | {f"private.{time}": torch.tensor(ids) for time, ids in self.private.items()}

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave, which may stand among other things."""
        self.prompted, self.anew, self.private = {}, {}, {}
        for name, value in state.items():
            kind, _, number = name.partition(".")
            if kind in ("prompted", "private") and isinstance(value, Tensor):
                (self.prompted if kind == "prompted" else self.private)[int(number)] = value.tolist()
            elif kind == "anew":
                self.anew[int(number)] = int(value)
