"""Rows that come and go in one place in memory."""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

_STEP = 1024
"""Rows moved at a time."""


class Rows:
    """Rows (n, ...) at the beginning of a room that is taken once: pages of it that were never used cost nothing.

    Joined tensors of growing size would each be in memory twice, and leave holes in the heap that no later one fills.
    """

    def __init__(self, rows: Shaped[Tensor, "n ..."] | None = None) -> None:
        """No rows, or those given."""
        self._room = rows
        self._count = 0 if rows is None else len(rows)
        self._shared = False

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    @property
    def all(self) -> Shaped[Tensor, "n ..."]:
        """The rows, as a view: good until the next change."""
        assert self._room is not None
        return self._room[: self._count]

    def share(self) -> Shaped[Tensor, "n ..."]:
        """The rows as they are now, whatever changes later. Nothing is copied before something does."""
        self._shared = True
        return self.all

    @torch.inference_mode()
    def append(self, rows: Shaped[Tensor, "m ..."], room: int) -> None:
        """Add rows; where they do not fit in, take room for ``room`` rows, or more if it must be."""
        count = self._count + len(rows)
        if self._room is None or count > len(self._room):
            least = count if self._room is None else max(count, len(self._room) * 3 // 2)
            larger = rows.new_empty(max(room, least), *rows.shape[1:])
            if self._room is not None:
                larger[: self._count] = self.all
            self._room, self._shared = larger, False
        self._room[self._count : count] = rows
        self._count = count

    @torch.inference_mode()
    def set(self, rows: Shaped[Tensor, "n ..."]) -> None:
        """Other values in all rows."""
        if self._shared and self._room is not None:
            self._room, self._shared = torch.empty_like(self._room), False
        self.all.copy_(rows)

    @torch.inference_mode()
    def keep(self, index: Int[Tensor, " k"], new: Shaped[Tensor, "m ..."] | None = None) -> None:
        """Keep the rows ``index``, in this order; numbers from n on stand for the rows of ``new``.

        No row may move towards the end: the i-th of ``index`` is at least i.
        """
        count, room = self._count, self._room
        assert room is not None
        target = torch.empty_like(room) if self._shared else room
        for low in range(0, len(index), _STEP):
            part = index[low : low + _STEP]
            rows = room[part.clamp(max=count - 1)]
            if new is not None:
                added = part >= count
                rows[added] = new[part[added] - count]
            target[low : low + len(part)] = rows
        self._room, self._count, self._shared = target, len(index), False
