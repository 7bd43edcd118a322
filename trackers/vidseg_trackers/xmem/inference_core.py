"""XMem frame by frame: when to segment, when to memorise, and what a mask changes (facts of the official procedure).

All tensors are those of one padded image; nothing here knows of videos, files or original resolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vidseg.state import nested, prefixed
from vidseg.types import State
from vidseg_trackers.xmem.memory import Memory
from vidseg_trackers.xmem.network import KeyFeatures, XMem, aggregate_probabilities, upsample_x4
from vidseg_trackers.xmem.official_memory import OfficialMemory
from vidseg_trackers.xmem.options import XMemOptions

SMALL_CHANGE = 0.9
"""A correction changes a mask little that has at least this IoU with it."""
Judge = Callable[[Float[Tensor, "N1 H W"], Float[Tensor, "N h16 w16"], Sequence[int]], list[int]]
"""Probabilities, nearest similarities and ids -> rows of the objects that are not on the frame after all."""


class InferenceCore:
    """The state of one video: objects in order of appearance, sensory memory, memory bank, clocks."""

    def __init__(self, network: XMem, options: XMemOptions) -> None:
        self.network, self.options = network, options
        self.memory = OfficialMemory(options) if options.memory == "official" else Memory(options)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.memory.clear()
        self.ids: list[int] = []
        self.hidden: Tensor | None = None
        self.time = 0
        self.last_memory = 0
        self.last_deep = -self.options.deep_update_every

    def step(
        self,
        image: Float[Tensor, "1 3 H W"],
        masks: Mapping[int, Float[Tensor, "H W"]],
        judge: Judge | None = None,
        features: KeyFeatures | None = None,
    ) -> Float[Tensor, "N1 H W"]:
        """One frame: probabilities of the background and of every object of ``ids``, summing to one.

        Args:
            image: normalised and padded to multiples of 16.
            masks: 0/1 masks of new objects (they join ``ids``) and of known ones (which they correct). The other known
                objects keep what is predicted, except where a given mask lies.
            judge: finds the predictions that are false; nothing is learned from them. A frame of false predictions
                alone changes no memory.
            features: of the image, where they are known already.
        """
        known, features = list(self.ids), features or self.network.encode_key(image)
        if masks and masks.keys() <= set(known) and isinstance(self.memory, Memory):
            return self._correct(image, masks, judge, features)
        due, deep, separate = self._clocks()
        remember = bool(masks) or due
        deep = deep if separate else remember
        predicted: Tensor | None = None
        readout, gone = torch.empty(0), list[int]()
        if any(i not in masks for i in known):
            predicted, readout, gone = self._predict(features, masks, judge, update_hidden=separate or not deep)
        if masks:
            self.ids += [i for i in masks if i not in known]
            self._grow_hidden(features)
            probabilities = self._merge(predicted, known, masks)
        else:
            assert predicted is not None  # callers step only with objects
            probabilities = predicted
        if remember and (masks or len(gone) < len(known)):
            kept, before = {known[row]: readout[row] for row in gone}, self.hidden
            self._memorise(image, features, probabilities, deep, list(masks), kept)
            self._restore_hidden(before, gone)
        self.time += 1
        return probabilities[0]

    def _correct(
        self,
        image: Float[Tensor, "1 3 H W"],
        masks: Mapping[int, Float[Tensor, "H W"]],
        judge: Judge | None,
        features: KeyFeatures,
    ) -> Float[Tensor, "N1 H W"]:
        """A frame on which known objects are corrected, and no other is given.

        The others go on as if nothing had been said. An object whose mask is changed much begins anew from there. One
        whose mask is changed little learns the changed pixels, and what was predicted elsewhere: taken for certain, the
        errors that a small correction leaves in a mask would do harm.
        """
        due, deep, separate = self._clocks()
        deep = deep or not separate
        before = self.hidden
        predicted, readout, gone = self._predict(features, masks, judge, update_hidden=separate or not due)
        probabilities = self._merge(predicted, self.ids, masks)
        rows = {i: self.ids.index(i) for i in masks}
        own = {i: predicted[0, 1 + row] for i, row in rows.items()}
        anew = [i for i, mask in masks.items() if _iou(own[i] > 0.5, mask > 0.5) < SMALL_CHANGE]
        self._restore_hidden(before, [rows[i] for i in anew])
        learned = {i: mask if i in anew else _softened(own[i], mask) for i, mask in masks.items()}
        everyone = due or len(anew) == len(self.ids)
        kept, before = {self.ids[row]: readout[row] for row in gone}, self.hidden
        self._memorise(
            image,
            features,
            self._merge(predicted, self.ids, learned),
            deep,
            list(masks),
            kept,
            anew=anew,
            only=None if everyone else list(masks),
        )
        self._restore_hidden(before, gone if everyone else [row for row, i in enumerate(self.ids) if i not in anew])
        self.time += 1
        return probabilities[0]

    def _clocks(self) -> tuple[bool, bool, bool]:
        """Is it time to remember a frame, and for a deep update, and has that a clock of its own?"""
        every, options = self.options.deep_update_every, self.options
        due = self.time - self.last_memory >= options.mem_every
        return due, self.time - self.last_deep >= every, every > 0

    def skip(self) -> None:
        """A frame that shows nothing: only time goes on."""
        self.time += 1

    def remove(self, ids: Sequence[int]) -> None:
        """Forget objects."""
        self.memory.remove(ids)
        rows = [row for row, i in enumerate(self.ids) if i not in ids]
        if self.hidden is not None:
            self.hidden = self.hidden[:, rows].contiguous()
        self.ids = [self.ids[row] for row in rows]

    def forget_motion(self) -> None:
        """Reset the sensory memory: what is seen next has nothing to do with the last frame."""
        if self.hidden is not None:
            self.hidden = torch.zeros_like(self.hidden)

    def _segment(self, features: KeyFeatures, known: Sequence[int], update_hidden: bool) -> tuple[Tensor, Tensor]:
        """Probabilities (1, N+1, H, W), and what memory said (N, h*w, Cv)."""
        rows = self.memory.read(_rows(features.key), _rows(features.selection), known)
        readout = rows.unflatten(1, features.key.shape[-2:]).permute(0, 3, 1, 2)[None]
        logits, hidden = self.network.segment(features, readout, self.hidden, update_hidden=update_hidden)
        self._keep_hidden(hidden)
        return aggregate_probabilities(torch.sigmoid(upsample_x4(logits))), rows

    def _predict(
        self, features: KeyFeatures, masks: Mapping[int, Tensor], judge: Judge | None, *, update_hidden: bool
    ) -> tuple[Tensor, Tensor, list[int]]:
        """As :meth:`_segment`, and the rows of those without a mask that are not on the frame after all."""
        known, before = list(self.ids), self.hidden
        predicted, readout = self._segment(features, known, update_hidden=update_hidden)
        gone: list[int] = []
        if judge is not None and isinstance(self.memory, Memory):
            nearest = self.memory.nearest.unflatten(1, features.key.shape[-2:])
            gone = [row for row in judge(predicted[0], nearest, known) if known[row] not in masks]
            if gone:
                predicted[0, 0] += predicted[0, [1 + row for row in gone]].sum(0)
                predicted[0, [1 + row for row in gone]] = 0
                self._restore_hidden(before, gone)
        return predicted, readout, gone

    def _merge(self, predicted: Tensor | None, known: Sequence[int], masks: Mapping[int, Tensor]) -> Tensor:
        """Given masks are taken as they are; predictions give way to them."""
        covered = torch.stack(list(masks.values())).sum(0) > 0.5
        channels = [
            masks[i] if i in masks else predicted[0, 1 + known.index(i)].masked_fill(covered, 0)  # type: ignore[index]
            for i in self.ids
        ]
        return aggregate_probabilities(torch.stack(channels)[None])

    def _memorise(
        self,
        image: Tensor,
        features: KeyFeatures,
        probabilities: Tensor,
        deep: bool,
        prompted: Sequence[int],
        kept: Mapping[int, Tensor],
        anew: Sequence[int] = (),
        only: Sequence[int] | None = None,
    ) -> None:
        """Memorise a frame. ``kept``: values of absent objects, which learn nothing: what memory said already.

        ``anew`` and ``only``: see :meth:`Memory.add`; for the others no time has come.
        """
        value, hidden = self.network.encode_value(image, features.f16, self.hidden, probabilities[:, 1:], deep=deep)
        rows = value[0].permute(0, 2, 3, 1).flatten(1, 2)
        self.memory.add(
            _rows(features.key),
            _rows(features.shrinkage),
            _rows(features.selection),
            dict(zip(self.ids, rows, strict=True)) | dict(kept),
            prompted,
            anew=anew,
            only=only,
        )
        if deep:
            self._keep_hidden(hidden)
        if only is None:
            self.last_memory = self.time
            self.last_deep = self.time if deep else self.last_deep

    def _grow_hidden(self, features: KeyFeatures) -> None:
        have = 0 if self.hidden is None else self.hidden.shape[1]
        fresh = self.network.initial_hidden(features, len(self.ids) - have)
        if fresh is not None:
            self.hidden = fresh if self.hidden is None else torch.cat([self.hidden, fresh], 1)

    def _restore_hidden(self, before: Tensor | None, gone: Sequence[int]) -> None:
        if gone and self.hidden is not None and before is not None:
            self.hidden = self.hidden.clone()
            self.hidden[:, gone] = before[:, gone]

    def _keep_hidden(self, hidden: Tensor | None) -> None:
        # one memory layout whatever the kernels gave, so that a restored state continues bit-identically
        self.hidden = None if hidden is None else hidden.contiguous()

    def state_dict(self) -> State:
        """All state as tensors and scalars."""
        state: State = prefixed("memory.", self.memory.state_dict())
        state |= {"time": self.time, "last_memory": self.last_memory, "last_deep": self.last_deep}
        state["ids"] = torch.tensor(self.ids, dtype=torch.int64)
        if self.hidden is not None:
            state["hidden"] = self.hidden
        return state

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.clear()
        ids, hidden = state["ids"], state.get("hidden")
        self.ids = ids.tolist() if isinstance(ids, Tensor) else []
        self.hidden = hidden.to(device, copy=True) if isinstance(hidden, Tensor) else None
        self.time, self.last_memory = int(state["time"]), int(state["last_memory"])
        self.last_deep = int(state["last_deep"])
        self.memory.load_state_dict(nested("memory.", state), device)


def _iou(a: Bool[Tensor, "H W"], b: Bool[Tensor, "H W"]) -> float:
    return int((a & b).sum()) / max(1, int((a | b).sum()))


def _softened(predicted: Float[Tensor, "H W"], mask: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """A prediction with what a mask changes in it."""
    return torch.where((predicted > 0.5) == (mask > 0.5), predicted, mask)


def _rows(x: Float[Tensor, "1 C h w"]) -> Float[Tensor, "h*w C"]:
    """Pixels as contiguous rows."""
    return x[0].permute(1, 2, 0).flatten(0, 1).contiguous()
