"""Pixel memory in buckets, and the object memory (Cutie, section 3 and supplement; facts of the published memory).

A bucket holds the objects that entered memory on the same frame.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.state import nested
from vidseg.types import State
from vidseg_trackers.cutie.bucket import Bucket, MemoryFrame
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.xmem.memory_reading import expand_query


class Memory:
    """Buckets of pixel memory, and the object memory: sums of summaries (B, Q, C+1) over an object's memory frames."""

    def __init__(self, options: CutieOptions) -> None:
        self.options = options
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.buckets: dict[int, Bucket] = {}
        self.object_memory: dict[int, Tensor] = {}
        self._next_bucket = 0

    def add(
        self,
        frame: MemoryFrame,
        values: Mapping[int, Tensor],
        summaries: Mapping[int, Tensor],
        *,
        permanent: bool,
        only: Collection[int] | None = None,
    ) -> None:
        """Memorise a frame: values (B, M, Cv) and summaries of every object; new objects found a bucket.

        A permanent frame of known objects may count for ``only`` some of them: the others learn nothing from it.
        """
        known = {i for bucket in self.buckets.values() for i in bucket.values}
        new = [i for i in values if i not in known]
        for bucket in self.buckets.values():
            if only is None or any(i in only for i in bucket.values):
                bucket.add(frame, {i: values[i] for i in bucket.values}, permanent=permanent, only=only)
        if new:
            bucket = self.buckets[self._next_bucket] = Bucket(self.options)
            bucket.add(frame, {i: values[i] for i in new}, permanent=True)
            self._next_bucket += 1
        for i, summary in summaries.items():
            if only is not None and i not in only:
                continue
            old = self.object_memory.get(i)
            self.object_memory[i] = summary.clone() if old is None else old + summary

    def read(
        self, key: Float[Tensor, "B Q C"], selection: Float[Tensor, "B Q C"]
    ) -> Iterable[tuple[list[int], Float[Tensor, "B N Q Cv"]]]:
        """What memory says about every pixel, for the objects of every bucket."""
        query = expand_query(key, selection)
        for bucket in self.buckets.values():
            yield bucket.ids, bucket.read(query)

    def remove(self, ids: Iterable[int]) -> None:
        """Forget objects. The published code forgets their pixel memory only."""
        for i in ids:
            for bucket in self.buckets.values():
                bucket.values.pop(i, None)
            if self.options.memory == "correct":
                self.object_memory.pop(i, None)
        self.buckets = {number: bucket for number, bucket in self.buckets.items() if bucket.values}

    def keep_permanent(self) -> None:
        """Forget the temporary and long-term elements; the object memory stays."""
        for bucket in self.buckets.values():
            bucket.keep_permanent()

    def state_dict(self) -> State:
        """All of it as tensors and scalars."""
        state: State = {f"object.{i}": value.clone() for i, value in self.object_memory.items()}
        layout = {}
        for number, bucket in self.buckets.items():
            parts = {"long": bucket.long, "permanent": bucket.permanent, "owners": bucket.owners}
            layout[number] = {"ids": bucket.ids, **parts}
            counts = {name: bucket.table[name].clone() for name in ("use", "life")}  # the others never change in place
            state |= {f"table.{number}.{name}": column for name, column in (bucket.table | counts).items()}
            state |= {f"value.{number}.{i}": value for i, value in bucket.values.items()}
        return state | {"layout": json.dumps(layout), "next_bucket": self._next_bucket}

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.clear()
        tensors = {k: v.to(device, copy=True) for k, v in state.items() if isinstance(v, Tensor)}
        for number, layout in json.loads(str(state["layout"])).items():
            bucket = self.buckets[int(number)] = Bucket(self.options)
            bucket.long, bucket.permanent, bucket.owners = (layout[name] for name in ("long", "permanent", "owners"))
            bucket.table = nested(f"table.{number}.", tensors)
            bucket.values = {i: tensors[f"value.{number}.{i}"] for i in layout["ids"]}
        self.object_memory = {int(k.split(".")[1]): v for k, v in tensors.items() if k.startswith("object.")}
        self._next_bucket = int(state["next_bucket"])
