"""Working and long-term memory (XMem sections 3.3 and 3.4), indexed per object, for streams without end.

One table holds all memory elements, sorted by the time of the memory frame they come from: the memory side of the
similarity per row, shared by all objects, and one table of values per object. An object that was born at time t has
values for exactly the rows with ``time >= t``, which are the last rows; so every value stands beside its own key,
whatever was consolidated, evicted or removed before. Objects may be added and removed at any time.

Keys themselves are needed only to consolidate: working rows have them in a second table, prototypes do not.

The number of rows is bounded: long-term elements by ``max_long_term_elements``, working frames by
``max_mid_term_frames``, and permanent frames by ``max_permanent_frames``. Permanent are the frames on which living
objects were given or corrected; they are not consolidated (for objects of the first frame: the official rule). Of more
than the bound, the first and the newest are. The room for the rows is taken once, with that of one permanent frame.

Which rows count for an object: :mod:`vidseg_trackers.xmem.corrections`. Those that count for nobody are dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidseg.types import State
from vidseg_trackers.xmem.corrections import NOTHING, Corrections, Hidden
from vidseg_trackers.xmem.memory_reading import expand_memory, expand_query, similarity, top_weights, weighted_rows
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.rows import Rows

MAX_SCORES = 1 << 22
"""Similarities computed at once (16 MB): pixels are read in parts, so that a full memory needs no more for it. The
room for them is taken once: blocks of a size that changes with every frame would leave holes in the heap."""
_LEAST = torch.finfo(torch.float32).min
"""Similarity of what does not count."""


class Memory:
    """Memory of the objects of one video.

    ``table`` has the columns expanded, use, life, time and prototype of all rows, ``work`` key, shrinkage and selection
    of the working rows, in the same order; ``values`` maps an object id to the values of its rows (m, Cv), ``prompted``
    to the times at which the user gave or corrected it.
    """

    def __init__(self, options: XMemOptions) -> None:
        self.options = options
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._table: dict[str, Rows] = {}
        self._work: dict[str, Rows] = {}
        self._values: dict[int, Rows] = {}
        options = self.options
        self._corrections = Corrections(options.max_permanent_frames, forget=options.forget_on_correction)
        self.now = 0
        self.nearest = torch.empty(0, 0)
        self._scores: Tensor | None = None

    @property
    def prompted(self) -> dict[int, list[int]]:
        """Times at which every object was given or corrected."""
        return self._corrections.prompted

    @property
    def table(self) -> dict[str, Tensor]:
        """Columns of all rows, as views: good until the next change."""
        return {name: rows.all for name, rows in self._table.items()}

    @property
    def work(self) -> dict[str, Tensor]:
        """Columns of the working rows, as views."""
        return {name: rows.all for name, rows in self._work.items()}

    @property
    def values(self) -> dict[int, Tensor]:
        """Values of every object, as views."""
        return {i: rows.all for i, rows in self._values.items()}

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of working and of long-term elements."""
        if not self._table:
            return 0, 0
        prototype = self.table["prototype"]
        long = int(prototype.sum())
        return len(prototype) - long, long

    def read(
        self, key: Float[Tensor, "Q C"], selection: Float[Tensor, "Q C"], ids: Sequence[int]
    ) -> Float[Tensor, "N Q Cv"]:
        """What memory says about every query pixel, for every object of ``ids`` (all must be in memory).

        ``nearest`` (N, Q) holds the largest similarity of every pixel to the rows of every object afterwards.
        """
        memory, values = self.table["expanded"], self.values
        total = len(memory)
        out = torch.stack([values[i].new_empty(len(key), values[i].shape[1]) for i in ids])
        self.nearest = key.new_empty(out.shape[:2])
        groups: dict[tuple[int, Hidden], list[int]] = {}
        for position, i in enumerate(ids):
            groups.setdefault((total - len(values[i]), self._corrections.hidden_from(i)), []).append(position)
        hidden = {rule: self._hidden(rule) for _, rule in groups if rule != NOTHING}
        use = self.table["use"].clone()
        step = max(1, MAX_SCORES // total)
        query = expand_query(key, selection)
        if self._scores is None or self._scores.device != key.device or len(self._scores) < step * total:
            self._scores = key.new_empty(max(MAX_SCORES, total), dtype=torch.float32)
        for low in range(0, len(key), step):
            part = query[low : low + step]
            scores = similarity(part, memory, self._scores[: len(part) * total].view(len(part), total))
            for (start, rule), positions in groups.items():
                own = scores[:, start:]
                if rule in hidden:
                    own = own.masked_fill(hidden[rule][start:], _LEAST)
                weights, index = top_weights(own, self.options.top_k)
                nearest = own.gather(1, index[:, :1])[:, 0]
                for position in positions:
                    self.nearest[position, low : low + step] = nearest
                    out[position, low : low + step] = weighted_rows(values[ids[position]], weights, index)
                # usage is the mean over the groups: for one group it is the official count
                use[start:].index_add_(0, index.flatten(), weights.flatten() / len(groups))
        self._table["use"].set(use)
        self._table["life"].set(self.table["life"] + 1)
        return out

    def add(
        self,
        key: Float[Tensor, "Q C"],
        shrinkage: Float[Tensor, "Q 1"],
        selection: Float[Tensor, "Q C"],
        values: Mapping[int, Float[Tensor, "Q Cv"]],
        prompted: Collection[int],
        *,
        anew: Collection[int] = (),
        only: Collection[int] | None = None,
    ) -> None:
        """Memorise one frame: values of every object, new ones are born here. Consolidates a full working memory.

        Args:
            key, shrinkage, selection, values: of the frame.
            prompted: the objects that the user gave or corrected on it.
            anew: those of them for which what came before no longer counts.
            only: the objects that the frame counts for; None: all.
        """
        n = len(key)
        rows = {
            "expanded": expand_memory(key, shrinkage),
            "use": key.new_zeros(n),
            "life": key.new_full((n,), 1e-7),
            "time": torch.full((n,), self.now, dtype=torch.int64, device=key.device),
            "prototype": torch.zeros(n, dtype=torch.bool, device=key.device),
        }
        o = self.options
        work_room = (o.max_mid_term_frames + 1) * n if o.long_term else 0  # one permanent frame, and the new one
        room = o.max_long_term_elements + work_room if o.long_term else 0
        for name, column in rows.items():
            self._table.setdefault(name, Rows()).append(column, room)
        for name, column in {"key": key, "shrinkage": shrinkage, "selection": selection}.items():
            self._work.setdefault(name, Rows()).append(column, work_room)
        for i, value in values.items():
            self._values.setdefault(i, Rows()).append(value, room)
        self._corrections.add(prompted, self.now, anew, only)
        self.now += 1
        if anew:
            self._drop_unread()
        if self.options.long_term:
            self._consolidate()

    def remove(self, ids: Iterable[int]) -> None:
        """Forget objects, and the rows that nobody else has values for."""
        for i in ids:
            self._values.pop(i, None)
            self._corrections.forget(i)
        if not self._values:
            now = self.now
            self.clear()
            self.now = now
            return
        self._drop_unread()

    def _hidden(self, rule: Hidden) -> Bool[Tensor, " m"]:
        return self._corrections.rows(rule, self.table["time"])

    def _drop_unread(self) -> None:
        """Drop the rows that count for no object."""
        unread = torch.ones_like(self.table["prototype"])
        for i, rows in self._values.items():
            birth = len(unread) - len(rows)
            unread[birth:] &= self._hidden(self._corrections.hidden_from(i))[birth:]
        self._drop(unread)
        self._corrections.keep(self.table["time"].tolist())

    def _drop(self, dropped: Bool[Tensor, " m"]) -> None:
        """Drop rows from every table."""
        keep, working = ~dropped, ~self.table["prototype"]
        parts = [(rows, keep[len(keep) - len(rows) :]) for rows in (*self._values.values(), *self._table.values())]
        for rows, part in (*parts, *((rows, keep[working]) for rows in self._work.values())):
            if not part.all():
                rows.keep(part.nonzero()[:, 0])

    def _consolidate(self) -> None:
        """Turn the older working frames into prototypes by memory potentiation (section 3.4)."""
        o = self.options
        time, working = self.table["time"], ~self.table["prototype"]
        permanent = self._corrections.permanent
        frames = [t for t in time[working].unique().tolist() if t not in permanent]
        if len(frames) < o.max_mid_term_frames - 1:
            return
        self._evict()
        time, working = self.table["time"], ~self.table["prototype"]
        old = frames[: len(frames) - (o.min_mid_term_frames - 1)]
        chosen = working & torch.isin(time, torch.tensor(old, device=time.device))
        part = {name: column[chosen] for name, column in self.table.items()}
        part |= {name: column[chosen[working]] for name, column in self.work.items()}
        usage = part["use"] / part["life"]
        picked = usage.topk(min(o.num_prototypes, len(usage))).indices
        picked = picked[part["time"][picked].argsort(stable=True)]
        scores = similarity(expand_query(part["key"][picked], part["selection"][picked]), part["expanded"])
        rows = {
            "expanded": expand_memory(part["key"][picked], torch.softmax(scores, -1) @ part["shrinkage"]),
            "use": torch.zeros_like(usage[picked]),
            "life": torch.full_like(usage[picked], 1e-7),
            "time": part["time"][picked],
            "prototype": torch.ones_like(picked, dtype=torch.bool),
        }
        rest = (~chosen[working]).nonzero()[:, 0]
        for column in self._work.values():
            column.keep(rest)
        self._swap(chosen, rows, scores)

    def _swap(self, chosen: Tensor, prototypes: dict[str, Tensor], scores: Tensor) -> None:
        """Put prototypes in the place of the chosen rows, in every table, and keep the order of time."""
        total, time = len(chosen), self.table["time"].clone()
        for i, rows in self._values.items():
            birth, rule = total - len(rows), self._corrections.hidden_from(i)
            own = chosen[birth:]
            candidates, first = rows.all[own], int(chosen[:birth].sum())
            # an object gets a value at a prototype when it lived at its time, from the candidates it lived at
            alive = prototypes["time"] >= time[birth]
            part = scores[alive, first:]
            if rule != NOTHING:  # where nothing counts for it, neither does what is made of it
                part = part.masked_fill(self._hidden(rule)[birth:][own], _LEAST)
            weights = torch.softmax(part, -1) if len(candidates) else scores[alive, :0]
            new = (weights @ candidates.float()).to(candidates.dtype)
            rows.keep(_merged(time[birth:], own, prototypes["time"][alive]), new)
        index = _merged(time, chosen, prototypes["time"])
        for name, rows in self._table.items():
            rows.keep(index, prototypes[name])

    def _evict(self) -> None:
        """Make room for new prototypes: drop the least used long-term elements, ties included (the official rule)."""
        target = self.options.max_long_term_elements - self.options.num_prototypes
        long = self.table["prototype"]
        usage = (self.table["use"] / self.table["life"])[long]
        surplus = len(usage) - target
        if surplus <= 0:
            return
        dropped = torch.zeros_like(long)
        dropped[long] = usage <= usage.topk(surplus, largest=False).values[-1]
        self._drop(dropped)

    def state_dict(self) -> State:
        """All of it as tensors and scalars, independent of what happens later."""
        state: State = {f"table.{name}": rows.share() for name, rows in self._table.items()}
        state |= {f"work.{name}": rows.share() for name, rows in self._work.items()}
        state |= {f"value.{i}": rows.share() for i, rows in self._values.items()}
        state |= self._corrections.state_dict()
        return state | {"now": self.now}

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.clear()
        self._corrections.load_state_dict(state)
        for name, item in state.items():
            kind, _, rest = name.partition(".")
            if kind in ("table", "work") and isinstance(item, Tensor):
                (self._table if kind == "table" else self._work)[rest] = Rows(item.to(device, copy=True))
            elif kind == "value" and isinstance(item, Tensor):
                self._values[int(rest)] = Rows(item.to(device, copy=True))
            elif name == "now" and isinstance(item, int):
                self.now = item


def _merged(time: Tensor, chosen: Tensor, prototype_time: Tensor) -> Tensor:
    """Numbers of the rows that are not ``chosen``, and of the prototypes counted on after all rows, sorted by time.

    There is a chosen row for every prototype, of the same time: no row moves towards the end.
    """
    rest = (~chosen).nonzero()[:, 0]
    numbers = torch.cat([rest, torch.arange(len(prototype_time), device=time.device) + len(time)])
    return numbers[torch.cat([time[rest], prototype_time]).argsort(stable=True)]
