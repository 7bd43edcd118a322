"""The memory bank of the published code, with its faults for objects that appear late: only to compare numbers.

Objects introduced on the same frame are a group; a group's values cover the LAST rows of a store. Two faults follow:
prototype values of a late group are read with the keys of other prototypes, and its first-appearance values with the
keys of frame 0, because consolidation keeps the group's first values but the first frame's keys. A long-term memory
with two groups cannot evict. :class:`~vidseg_trackers.xmem.memory.Memory` has none of this and is otherwise equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.state import nested
from vidseg.types import State
from vidseg_trackers.xmem.memory_reading import expand_memory, expand_query, similarity, top_weights, weighted_rows
from vidseg_trackers.xmem.options import XMemOptions


class _Store:
    """Columns shared by all objects, and the values (n, m, Cv) of every group."""

    def __init__(self) -> None:
        self.columns: dict[str, Tensor] = {}
        self.groups: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.columns["key"]) if self.columns else 0

    def append(self, columns: Mapping[str, Tensor]) -> None:
        n = len(columns["key"])
        rows = {**columns, "use": columns["key"].new_zeros(n), "life": columns["key"].new_full((n,), 1e-7)}
        self.columns = {k: torch.cat([self.columns[k], v]) if self.columns else v for k, v in rows.items()}

    def usage(self) -> Tensor:
        return self.columns["use"] / self.columns["life"]


class OfficialMemory:
    """Same interface as :class:`~vidseg_trackers.xmem.memory.Memory`, without removal."""

    def __init__(self, options: XMemOptions) -> None:
        self.options = options
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.work, self.long = _Store(), _Store()
        self.members: list[list[int]] = []

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of working and of long-term elements."""
        return len(self.work), len(self.long)

    def read(
        self, key: Float[Tensor, "Q C"], selection: Float[Tensor, "Q C"], ids: Sequence[int]
    ) -> Float[Tensor, "N Q Cv"]:
        """What memory says about every query pixel, for every object of ``ids``."""
        query = expand_query(key, selection)
        parts = [
            similarity(query, expand_memory(store.columns["key"], store.columns["shrinkage"]))
            for store in (self.long, self.work)
            if len(store)
        ]
        long_scores = parts[0] if len(self.long) else parts[0][:, :0]
        found: dict[int, Tensor] = {}
        for g, (members, values) in enumerate(zip(self.members, self.work.groups, strict=True)):
            scores = parts[-1][:, parts[-1].shape[1] - values.shape[1] :]
            if g < len(self.long.groups):
                long_values = self.long.groups[g]
                scores = torch.cat([long_scores[:, len(self.long) - long_values.shape[1] :], scores], 1)
                values = torch.cat([long_values, values], 1)
            weights, index = top_weights(scores, self.options.top_k)
            if g == 0:
                self._count(weights, index)
            found |= {i: weighted_rows(value, weights, index) for i, value in zip(members, values, strict=True)}
        return torch.stack([found[i] for i in ids])

    def _count(self, weights: Tensor, index: Tensor) -> None:
        use = weights.new_zeros(len(self.long) + len(self.work))
        use.index_add_(0, index.flatten(), weights.flatten())
        for store, share in ((self.long, use[: len(self.long)]), (self.work, use[len(self.long) :])):
            if len(store):
                store.columns["use"] = store.columns["use"] + share
                store.columns["life"] = store.columns["life"] + 1

    def add(
        self,
        key: Float[Tensor, "Q C"],
        shrinkage: Float[Tensor, "Q 1"],
        selection: Float[Tensor, "Q C"],
        values: Mapping[int, Float[Tensor, "Q Cv"]],
        prompted: Iterable[int],
        *,
        anew: Iterable[int] = (),
        only: Iterable[int] | None = None,
    ) -> None:
        """Memorise one frame, for all objects; new objects form a new group."""
        new = [i for i in values if all(i not in group for group in self.members)]
        self.work.append({"key": key, "shrinkage": shrinkage, "selection": selection})
        for g, members in enumerate(self.members):
            rows = torch.stack([values[i] for i in members])
            self.work.groups[g] = torch.cat([self.work.groups[g], rows], 1)
        if new:
            self.members.append(new)
            self.work.groups.append(torch.stack([values[i] for i in new]))
        if self.options.long_term and len(self.work) >= self.options.max_mid_term_frames * len(key):
            self._consolidate(len(key))

    def remove(self, ids: Iterable[int]) -> None:
        """Not possible.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"xmem memory=official cannot remove objects ({sorted(ids)}); use memory=correct")

    def _consolidate(self, frame: int) -> None:
        self._evict()
        size, start = len(self.work), frame
        stop = size - (self.options.min_mid_term_frames - 1) * frame
        least = (self.options.min_mid_term_frames + 1) * frame
        part = {name: column[start:stop] for name, column in self.work.columns.items()}
        usage = part["use"] / part["life"]
        picked = usage.topk(min(self.options.num_prototypes, len(usage))).indices
        scores = similarity(
            expand_query(part["key"][picked], part["selection"][picked]), expand_memory(part["key"], part["shrinkage"])
        )
        shrinkage = torch.softmax(scores, -1) @ part["shrinkage"]
        self.long.append({"key": part["key"][picked], "shrinkage": shrinkage})
        for g, values in enumerate(self.work.groups):
            n = values.shape[1]
            candidates = values[:, start : n - (size - stop)]
            if n == size or n > least:
                count = candidates.shape[1]
                valid = picked >= len(usage) - count
                if valid.any():
                    weights = torch.softmax(scores[valid, len(usage) - count :], -1).to(values.dtype)
                    self._append_long(g, weights @ candidates)
            if n >= least:
                self.work.groups[g] = torch.cat([values[:, :start], values[:, n - (size - stop) :]], 1)
        self.work.columns = {k: torch.cat([v[:start], v[stop:]]) for k, v in self.work.columns.items()}

    def _append_long(self, g: int, prototypes: Tensor) -> None:
        if g < len(self.long.groups):
            self.long.groups[g] = torch.cat([self.long.groups[g], prototypes], 1)
        else:
            self.long.groups.append(prototypes)

    def _evict(self) -> None:
        surplus = len(self.long) - (self.options.max_long_term_elements - self.options.num_prototypes)
        if surplus <= 0:
            return
        if len(self.long.groups) > 1:
            raise UsageError(
                "xmem memory=official cannot evict from a full long-term memory once objects appeared late; "
                "use memory=correct, or raise max_long_term_elements"
            )
        usage = self.long.usage()
        keep = usage > usage.topk(surplus, largest=False).values[-1]
        self.long.columns = {k: v[keep] for k, v in self.long.columns.items()}
        self.long.groups = [values[:, keep] for values in self.long.groups]

    def state_dict(self) -> State:
        """All of it as tensors and scalars."""
        state: State = {"members": ";".join(",".join(map(str, group)) for group in self.members)}
        for name, store in (("work", self.work), ("long", self.long)):
            state |= {f"{name}.column.{k}": v.clone() for k, v in store.columns.items()}
            state |= {f"{name}.group.{g}": v.clone() for g, v in enumerate(store.groups)}
        return state

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.clear()
        groups = str(state["members"])
        self.members = [[int(i) for i in group.split(",")] for group in groups.split(";")] if groups else []
        for name, store in (("work", self.work), ("long", self.long)):
            tensors = {k: v.to(device, copy=True) for k, v in state.items() if isinstance(v, Tensor)}
            store.columns = nested(f"{name}.column.", tensors)
            count = sum(k.startswith(f"{name}.group.") for k in tensors)
            store.groups = [tensors[f"{name}.group.{g}"] for g in range(count)]
