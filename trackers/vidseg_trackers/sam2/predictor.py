"""The published video predictors of SAM 2, for comparing numbers: all frames at hand, every record kept.

"official" is the current predictor, in which objects never see each other; "official-legacy" is the batched one that
HQ-SAM 2 uses: a frame prompted for some objects is a conditioning frame for all, and corrections of tracked frames
last. The causal tracker with bounded memory is :mod:`vidseg_trackers.sam2.tracker`; networks and rules are the same.
One class holds all of their state, so this module is longer than others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.sam2 import preprocess
from vidseg.sam2.decoder import as_points
from vidseg.sam2.model import Sam2, Sam2Features
from vidseg_trackers.sam2.records import NO_OBJECT, Record, Stores, reading
from vidseg_trackers.sam2.rules import VideoRules, non_overlapping

Behaviour = Literal["official", "official-legacy"]
Store = Literal["temp_cond", "temp_non_cond", "cond", "non_cond"]


class Output(NamedTuple):
    """Logits (N, 1, H, W) at the size of the video, for all objects in the order of ``ids``."""

    frame: int
    ids: list[Hashable]
    logits: Tensor


@dataclass(slots=True)
class _Object:
    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: set[int] = field(default_factory=set)
    pending: Stores = field(default_factory=Stores)
    stores: Stores = field(default_factory=Stores)
    tracked: dict[int, bool] = field(default_factory=dict)
    """Direction (True: backwards) in which a frame was tracked."""


class Predictor:
    """One video. Coordinates are pixels of the frames; frames are counted from 0."""

    def __init__(
        self,
        net: Sam2,
        frames: Sequence[npt.NDArray[np.uint8]],
        *,
        behaviour: Behaviour = "official",
        memory_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """``frames``: uint8 RGB (H, W, 3) of one size. ``memory_dtype``: float32 is better, but not what is published.

        Raises:
            UsageError: no frames, or an unknown behaviour.
        """
        if behaviour not in get_args(Behaviour):
            raise UsageError(f"behaviour {behaviour!r}: allowed are {', '.join(get_args(Behaviour))}")
        if not frames:
            raise UsageError("a video without frames")
        self.net, self.frames, self.config = net, frames, net.config
        self.legacy = behaviour == "official-legacy"
        self.rules = VideoRules(net, memory_dtype)
        self.size = (int(frames[0].shape[0]), int(frames[0].shape[1]))
        self.non_overlap_masks = net.config.non_overlap_masks
        self._features: tuple[int, Sam2Features] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all objects and results."""
        self._objects: dict[Hashable, _Object] = {}
        self._started = False
        self._consolidated: dict[bool, set[int]] = {True: set(), False: set()}  # legacy: by "is a conditioning frame"

    @property
    def ids(self) -> list[Hashable]:
        """The objects in the order in which they were added."""
        return list(self._objects)

    def input(self, frame: int) -> Float[Tensor, "3 S S"]:
        """A frame as the network sees it."""
        return preprocess.video(self.frames[frame], self.config.image_size, self.net.device)

    def record(self, frame: int, object_id: Hashable, *, pending: bool = False) -> tuple[Store, Record] | None:
        """The record of an object on a frame, and its store; with ``pending`` one not in memory yet comes first."""
        one = self._objects.get(object_id)
        if one is None:
            return None
        stores: list[tuple[Store, dict[int, Record]]] = [("cond", one.stores.cond), ("non_cond", one.stores.other)]
        if pending:
            stores = [("temp_cond", one.pending.cond), ("temp_non_cond", one.pending.other), *stores]
        return next(((name, store[frame]) for name, store in stores if frame in store), None)

    @torch.inference_mode()
    def add_mask(self, frame: int, object_id: Hashable, mask: npt.ArrayLike) -> Output:
        """Give the mask (H, W) of an object on a frame; it replaces points there."""
        one = self._object(object_id)
        prompt = preprocess.mask_prompt(mask, self.config.image_size, self.net.device)
        one.points.pop(frame, None)
        one.masks.add(frame)
        record = self.rules.given(self._encoded(frame), prompt)
        return self._prompted(one, frame, record)

    @torch.inference_mode()
    def add_points(
        self,
        frame: int,
        object_id: Hashable,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        box: npt.ArrayLike | None = None,
        clear_old: bool = True,
    ) -> Output:
        """Click on an object on a frame: points (P, 2) with labels (P,), 1 object, 0 background; and/or a box (4,).

        Raises:
            UsageError: nothing is given, points without labels, or a box with ``clear_old`` False.
        """
        if (points is None) != (labels is None) or (points is None and box is None):
            raise UsageError("add_points: points with labels, or a box, are expected")
        if box is not None and not clear_old:
            raise UsageError("add_points: a box comes before clicks; it cannot be added to old ones (clear_old=False)")
        clicks = self._clicks(points, labels, box)
        one = self._object(object_id)
        if not clear_old and frame in one.points:
            old = one.points[frame]
            clicks = (torch.cat([old[0], clicks[0]], 1), torch.cat([old[1], clicks[1]], 1))
        one.points[frame] = clicks
        one.masks.discard(frame)
        features = self._encoded(frame)
        initial = frame not in one.tracked
        kind = self._is_cond(one, frame)
        previous = next(
            (
                store[frame].low
                for store in (self._kind(one.pending, kind), one.stores.cond, one.stores.other)
                if frame in store
            ),
            None,
        )
        embedding = features.embedding if initial else self._conditioned(features, [one], frame, one.tracked[frame])
        (record,) = self.rules.prompted(features, embedding, clicks, previous)
        return self._prompted(one, frame, record)

    def _prompted(self, one: _Object, frame: int, record: Record) -> Output:
        kind = self._is_cond(one, frame)
        self._kind(one.pending, kind)[frame] = record
        return self._shown(frame, kind)

    def _is_cond(self, one: _Object, frame: int) -> bool:
        return frame not in one.tracked or self.config.correct_as_cond

    @torch.inference_mode()
    def propagate(
        self, start: int | None = None, max_frames: int | None = None, *, reverse: bool = False
    ) -> Iterator[Output]:
        """Track all objects from ``start`` (default: the first prompted frame) over ``max_frames`` more frames.

        Raises:
            UsageError: an object without a prompt, or no object.
        """
        self._consolidate()
        prompted = [t for one in self._objects.values() for t in one.stores.cond]
        first = min(prompted) if start is None else start
        last = len(self.frames) - 1
        reach = last + 1 if max_frames is None else max_frames
        order = range(first, max(first - reach, 0) - 1, -1) if reverse else range(first, min(first + reach, last) + 1)
        if reverse and first == 0:
            order = range(0)
        ids, objects = self.ids, list(self._objects.values())
        for t in order:
            with torch.inference_mode():  # a generator does not keep the caller's mode
                self._track(objects, t, reverse)
                records = [one.stores.cond.get(t) or one.stores.other[t] for one in objects]
                yield Output(t, ids, self._at_video_size(records))

    def _track(self, objects: Sequence[_Object], t: int, reverse: bool) -> None:
        """Compute a frame for the objects that have nothing final on it."""
        if self.legacy and t in self._consolidated[True] | self._consolidated[False]:
            todo: list[_Object] = []
        else:
            todo = [one for one in objects if t not in one.stores.cond]
        for one in objects:
            one.tracked[t] = reverse
        if not todo:
            return
        features = self._encoded(t)
        for part in [todo] if self.legacy else [[one] for one in todo]:
            records = self.rules.prompted(features, self._conditioned(features, part, t, reverse))
            self.rules.remember(features, records, prompted=False)
            for one, record in zip(part, records, strict=True):
                one.stores.other[t] = record

    def _consolidate(self) -> None:
        """Give pending records their memory and move them to the others."""
        if not self._objects:
            raise UsageError("propagate: no object; add a prompt first")
        self._started = True
        objects = list(self._objects.values())
        for kind in (False, True):
            frames = {t for one in objects for t in self._kind(one.pending, kind)}
            for t in sorted(frames):
                features = self._encoded(t)
                moved = objects if self.legacy else [one for one in objects if t in self._kind(one.pending, kind)]
                records = [self._latest(one, t, kind) for one in moved]
                for part in [records] if self.legacy else [[record] for record in records]:
                    self.rules.remember(features, part, prompted=True)
                for one, record in zip(moved, records, strict=True):
                    self._kind(one.stores, kind)[t] = record
                self._consolidated[kind].add(t)
                if self.config.clear_around_prompts and (not self.legacy or len(objects) == 1):
                    self._clear_around(moved, t)
            for one in objects:
                self._kind(one.pending, kind).clear()
        for object_id, one in self._objects.items():
            if not one.stores.cond:
                raise UsageError(f"propagate: object {object_id} has no prompt")
            for t in one.stores.cond:
                one.stores.other.pop(t, None)
        self._consolidated[False] -= self._consolidated[True]

    def _latest(self, one: _Object, t: int, kind: bool) -> Record:
        for store in (self._kind(one.pending, kind), one.stores.cond, one.stores.other):
            if t in store:
                return store[t]
        return self.rules.empty()

    def _clear_around(self, objects: Sequence[_Object], t: int) -> None:
        reach = self.config.num_maskmem * self.config.memory_stride
        for one in objects:
            for i in range(t - reach, t + reach + 1):
                one.stores.other.pop(i, None)

    def clear(self, frame: int, object_id: Hashable) -> Output:
        """Take back the prompts of an object on a frame. Its memory there stays readable, as published.

        Raises:
            UsageError: an unknown object.
        """
        if object_id not in self._objects:
            raise UsageError(f"clear: no object {object_id!r}; there are {self.ids}")
        one = self._objects[object_id]
        one.points.pop(frame, None)
        one.masks.discard(frame)
        one.pending.cond.pop(frame, None)
        one.pending.other.pop(frame, None)
        if not self.legacy:
            self._downgrade([one], frame)
        elif not any(frame in o.points or frame in o.masks for o in self._objects.values()):
            for frames in self._consolidated.values():
                frames.discard(frame)
            self._downgrade(list(self._objects.values()), frame)
            if not any(o.stores.cond for o in self._objects.values()):
                ids = self.ids
                self.reset()
                self._objects = {i: _Object() for i in ids}
        kind = any(frame in o.pending.cond for o in self._objects.values())
        return self._shown(frame, kind)

    def _downgrade(self, objects: Sequence[_Object], frame: int) -> None:
        for one in objects:
            record = one.stores.cond.pop(frame, None)
            if record is not None:
                one.stores.other[frame] = record
                one.tracked.pop(frame, None)

    def remove(self, object_id: Hashable) -> list[Output]:
        """Forget an object; returns the frames it had prompts on, as they are now. An unknown id is ignored."""
        one = self._objects.get(object_id)
        if one is None:
            return []
        if len(self._objects) == 1:
            self.reset()
            return []
        frames = sorted({*one.points, *one.masks})
        for frame in frames:
            self.clear(frame, object_id)
        self._objects.pop(object_id, None)
        return [self._shown(t, any(t in o.pending.cond for o in self._objects.values())) for t in frames]

    def _object(self, object_id: Hashable) -> _Object:
        if object_id not in self._objects and self.legacy and self._started:
            raise UsageError(f"object {object_id!r} is new: the batched predictor takes none after tracking began")
        return self._objects.setdefault(object_id, _Object())

    def _conditioned(self, features: Sam2Features, objects: Sequence[_Object], t: int, reverse: bool) -> Tensor:
        count = len(self.frames)
        readings = [reading(one.stores, t, self.config, frames=count, reverse=reverse) for one in objects]
        return self.rules.condition(features, readings, min(count, self.config.max_pointers))

    def _encoded(self, frame: int) -> Sam2Features:
        if not 0 <= frame < len(self.frames):
            raise UsageError(f"frame {frame}: the video has frames 0 to {len(self.frames) - 1}")
        if self._features is None or self._features[0] != frame:
            with torch.inference_mode():
                self._features = (frame, self.net.encode_frame(self.frames[frame]))
        return self._features[1]

    def _clicks(
        self, points: npt.ArrayLike | None, labels: npt.ArrayLike | None, box: npt.ArrayLike | None
    ) -> tuple[Tensor, Tensor]:
        (height, width), size, device = self.size, self.config.image_size, self.net.device
        clicks = marks = boxes = None
        if points is not None:
            clicks = preprocess.scaled(np.reshape(points, (1, -1, 2)), width, height, size).to(device)
            marks = torch.as_tensor(np.reshape(np.asarray(labels, np.int64), (1, -1))).to(device)
        if box is not None:
            boxes = preprocess.scaled(np.reshape(box, (1, 2, 2)), width, height, size).reshape(1, 4).to(device)
        result = as_points(clicks, marks, boxes)
        assert result is not None  # add_points has checked
        return result

    @staticmethod
    def _kind(stores: Stores, is_cond: bool) -> dict[int, Record]:
        return stores.cond if is_cond else stores.other

    def _shown(self, frame: int, kind: bool) -> Output:
        """All objects as a prompt shows them: what is pending comes first."""
        records = []
        for one in self._objects.values():
            stores = (self._kind(one.pending, kind), one.stores.cond, one.stores.other)
            records.append(next((store[frame] for store in stores if frame in store), None))
        return Output(frame, self.ids, self._at_video_size(records))

    def _at_video_size(self, records: Sequence[Record | None]) -> Float[Tensor, "N 1 H W"]:
        parts = []
        for record in records:
            if record is None or record.low is None:
                parts.append(torch.full((1, 1, *self.size), NO_OBJECT, device=self.net.device))
            else:
                parts.append(preprocess.upsample(record.low, self.size))
        logits = torch.cat(parts)
        return non_overlapping(logits) if self.non_overlap_masks else logits
