"""Pixel memory of the objects that joined on one frame (Cutie, section 3 and supplement; facts of the published code).

One table of elements with a key each, and the values of every object. Rows stand in the order long-term, permanent,
temporary. The first frame is permanent; the elements of later frames are temporary and are consolidated into long-term
prototypes or, without long-term memory, dropped first in, first out. All tensors have a leading batch axis B: 1, or 2
with the mirrored image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.mask_tracking.permanent import permanent_frames
from vidseg_trackers.xmem.memory_reading import (
    expand_memory,
    expand_query,
    similarity,
    top_weights_in_parts,
    weighted_rows,
)

_NEW_LIFE = 1e-7
MAX_SCORES = 1 << 22
"""Similarities computed at once (16 MB), so that a full memory of 26,000 elements does not need 170 MB for them."""


class MemoryFrame(NamedTuple):
    """The elements of one frame: key (B, M, C), shrinkage (B, M, 1), selection (B, M, C), float32."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor


class Bucket:
    """The memory of the objects that joined on one frame. ``values`` maps an object id to its rows (B, M, Cv)."""

    def __init__(self, options: CutieOptions) -> None:
        self.options = options
        self.table: dict[str, Tensor] = {}
        """key, shrinkage, use and life of all rows; selection of the temporary rows alone."""
        self.values: dict[int, Tensor] = {}
        self.long = self.permanent = 0
        """Rows at the beginning: first the long-term ones, then the permanent ones."""
        self.owners: list[list[int] | None] = []
        """The objects that each permanent frame counts for, in the order of the rows; None: all."""
        self._expanded: Tensor | None = None

    @property
    def ids(self) -> list[int]:
        """The objects, in the order in which they joined."""
        return list(self.values)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of working elements, of permanent ones among them, and of long-term elements."""
        rows = self.table["key"].shape[1]
        return rows - self.long, self.permanent, self.long

    def add(
        self, frame: MemoryFrame, values: Mapping[int, Tensor], *, permanent: bool, only: Collection[int] | None = None
    ) -> None:
        """Memorise a frame; the first one is permanent. A permanent one may count for ``only`` some objects."""
        first = not self.table
        kept = first or permanent
        place = self.long if kept else None
        new = {"key": frame.key, "shrinkage": frame.shrinkage}
        new["use"] = torch.zeros_like(frame.key[..., 0])
        new["life"] = torch.full_like(new["use"], _NEW_LIFE)
        for name, rows in new.items():
            self.table[name] = rows.clone() if first else _insert(self.table[name], rows, place)
        selection = frame.selection[:, :0] if kept else frame.selection
        self.table["selection"] = torch.cat([self.table.get("selection", selection[:, :0]), selection], 1)
        for i, rows in values.items():
            self.values[i] = rows.clone() if first else _insert(self.values[i], rows, place)
        self._expanded = None
        if kept:
            self.permanent += frame.key.shape[1]
            self.owners.insert(0, None if only is None else [i for i in values if i in only])
        self._bound(frame.key.shape[1])

    def read(self, query: Float[Tensor, "B Q C"]) -> Float[Tensor, "B N Q Cv"]:
        """What the ``top_k`` most similar elements of every pixel say of each object; counts their use."""
        if self._expanded is None:
            self._expanded = expand_memory(self.table["key"], self.table["shrinkage"])
        groups: dict[tuple[bool, ...], list[int]] = {}
        for i in self.values:
            groups.setdefault(tuple(ids is None or i in ids for ids in self.owners), []).append(i)
        said: dict[int, Tensor] = {}
        use = torch.zeros_like(self.table["use"])
        for counts, ids in groups.items():
            weights, index = self._nearest(query, counts)
            # as in XMem, usage is the mean over the groups
            use.scatter_add_(1, index.flatten(1), weights.flatten(1) / len(groups))
            for i in ids:
                rows = (weighted_rows(*one) for one in zip(self.values[i], weights, index, strict=True))
                said[i] = torch.stack(list(rows))
        self.count(use)
        return torch.stack([said[i] for i in self.values], 1)

    def _nearest(
        self, query: Float[Tensor, "B Q C"], counts: Sequence[bool]
    ) -> tuple[Float[Tensor, "B Q k"], Int[Tensor, "B Q k"]]:
        """Weights and rows of the most similar elements; ``counts``: which permanent frames are among them."""
        assert self._expanded is not None
        memory, rows = self._expanded, None
        if not all(counts):
            there = torch.ones(memory.shape[1], dtype=torch.bool)
            frames = there[self.long : self.long + self.permanent].view(len(counts), -1)
            frames &= torch.tensor(counts)[:, None]
            rows = there.nonzero()[:, 0].to(memory.device)
            memory = memory[:, rows]
        read = (top_weights_in_parts(*one, self.options.top_k, MAX_SCORES) for one in zip(query, memory, strict=True))
        weights, index = (torch.stack(parts) for parts in zip(*read, strict=True))
        return weights, index if rows is None else rows[index]

    def count(self, use: Float[Tensor, "B M"]) -> None:
        """Count a read as use of the rows that may be forgotten."""
        if not self.options.use_long_term:
            return
        counted = [slice(self.long + self.permanent, None)]
        if self.options.long_term.count_usage:
            counted.append(slice(0, self.long))
        for part in counted:
            self.table["use"][:, part] += use[:, part]
            self.table["life"][:, part] += 1

    def keep_permanent(self) -> None:
        """Forget the temporary and long-term elements."""
        self._keep(slice(self.long, self.long + self.permanent), temporary=slice(0, 0))
        self.long = 0

    def _bound(self, frame: int) -> None:
        """Keep the number of rows within the options; ``frame`` is the number of elements of a frame."""
        options = self.options
        count = self.permanent // frame
        if options.memory == "correct" and count > options.max_permanent_frames:
            newest_first = range(count)  # their blocks of rows; the first frame is the last of them
            kept = permanent_frames(newest_first[::-1], options.max_permanent_frames)
            blocks = [torch.arange(self.long + k * frame, self.long + (k + 1) * frame) for k in sorted(kept)]
            rest = torch.arange(self.long + self.permanent, self.table["key"].shape[1])
            self._keep(torch.cat([torch.arange(self.long), *blocks, rest]))
            self.permanent = len(kept) * frame
            self.owners = [self.owners[k] for k in sorted(kept)]
        temporary = self.table["selection"].shape[1]
        if not options.use_long_term:
            surplus = temporary - (options.max_mem_frames - 1) * frame
            if surplus > 0:
                self._drop_oldest(surplus)
        elif temporary >= (options.long_term.max_mem_frames - 1) * frame:
            self._consolidate(temporary - (options.long_term.min_mem_frames - 1) * frame)

    def _drop_oldest(self, count: int) -> None:
        start, rows = self.long + self.permanent, self.table["key"].shape[1]
        self._keep(torch.cat([torch.arange(start), torch.arange(start + count, rows)]), temporary=slice(count, None))

    def _consolidate(self, count: int) -> None:
        """Turn the oldest ``count`` temporary elements into prototypes, picked by their usage."""
        options = self.options.long_term
        if self.long >= options.max_num_tokens - options.num_prototypes:
            self._evict(options.max_num_tokens - options.num_prototypes - options.buffer_tokens)
        start = self.long + self.permanent
        part = {name: column[:, start : start + count] for name, column in self.table.items() if name != "selection"}
        part["selection"] = self.table["selection"][:, :count]
        picked = (part["use"] / part["life"]).topk(min(options.num_prototypes, count), 1).indices
        chosen = {name: _gather(part[name], picked) for name in ("key", "selection")}
        scores = similarity(
            expand_query(chosen["key"], chosen["selection"]), expand_memory(part["key"], part["shrinkage"])
        )
        weights = torch.softmax(scores, -1)
        new = {"key": chosen["key"], "shrinkage": weights @ part["shrinkage"]}
        new["use"] = torch.zeros_like(new["key"][..., 0])
        new["life"] = torch.full_like(new["use"], _NEW_LIFE)
        for i, rows in self.values.items():
            prototypes = (weights @ rows[:, start : start + count].float()).to(rows.dtype)
            self.values[i] = torch.cat(
                [rows[:, : self.long], prototypes, rows[:, self.long : start], rows[:, start + count :]], 1
            )
        for name, rows in new.items():
            column = self.table[name]
            self.table[name] = torch.cat(
                [column[:, : self.long], rows, column[:, self.long : start], column[:, start + count :]], 1
            )
        self.table["selection"] = self.table["selection"][:, count:].clone()
        self.long += picked.shape[1]
        self._expanded = None

    def _evict(self, target: int) -> None:
        """Keep the ``target`` most used long-term elements, in the order of their usage."""
        usage = self.table["use"][:, : self.long] / self.table["life"][:, : self.long]
        kept = usage.topk(target, 1).indices
        rest = torch.arange(self.long, self.table["key"].shape[1], device=kept.device).expand(len(kept), -1)
        self._keep(torch.cat([kept, rest], 1))
        self.long = target

    def _keep(self, rows: Tensor | slice, temporary: slice = slice(None)) -> None:
        """Only these rows: a slice, indices (M,), or indices (B, M) of every batch row."""

        def kept(column: Tensor) -> Tensor:
            if isinstance(rows, slice):
                return column[:, rows].clone()
            index = rows.to(column.device)
            return _gather(column, index if index.ndim == 2 else index.expand(len(column), -1))

        for name in ("key", "shrinkage", "use", "life"):
            self.table[name] = kept(self.table[name])
        self.table["selection"] = self.table["selection"][:, temporary].clone()
        self.values = {i: kept(value) for i, value in self.values.items()}
        self._expanded = None


def _insert(column: Tensor, rows: Tensor, place: int | None) -> Tensor:
    """``rows`` before row ``place``, or at the end."""
    parts = [column, rows] if place is None else [column[:, :place], rows, column[:, place:]]
    return torch.cat(parts, 1)


def _gather(column: Tensor, index: Tensor) -> Tensor:
    """Rows (B, n) of a column (B, M) or (B, M, C)."""
    if column.ndim == 2:
        return column.gather(1, index)
    return column.gather(1, index[..., None].expand(-1, -1, column.shape[-1]))
