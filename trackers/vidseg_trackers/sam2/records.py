"""What SAM 2 keeps of one object on one frame, and which frames of it the next one reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from vidseg.sam2.config import Sam2Config
from vidseg.types import ShapeRepr
from vidseg_trackers.mask_tracking.permanent import permanent_frames

NO_OBJECT = -1024.0
"""Logit of every pixel of an object that is not there."""
POINTER_FRAMES = 16
"""Frames whose pointers are read in a stream, whose length is not known."""


@dataclass(slots=True, repr=False)
class Record(ShapeRepr):
    """One object on one frame: low-resolution logits, score of its presence (a logit), pointer, spatial memory."""

    low: Float[Tensor, "1 1 h w"] | None
    score: Float[Tensor, "1 1"]
    ptr: Float[Tensor, "1 D"]
    mem: Float[Tensor, "1 M g g"] | None = None


@dataclass(slots=True)
class Stores:
    """The records of one object by frame: prompted (conditioning) frames in the order of their prompts, and others."""

    cond: dict[int, Record] = field(default_factory=dict)
    other: dict[int, Record] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a frame reads of one object: records with the row of the temporal code, pointers with their distance."""

    spatial: tuple[tuple[Record, int], ...]
    pointers: tuple[tuple[Record, int], ...]


def reading(stores: Stores, t: int, config: Sam2Config, *, frames: int | None = None, reverse: bool = False) -> Reading:
    """The records that frame ``t`` reads, in the published order.

    Args:
        stores: the records of an object; at least one frame was prompted.
        t: index of the frame.
        config: limits and strides.
        frames: length of the video, or None for a stream.
        reverse: the video is tracked backwards.
    """
    chosen = select_records(stores.cond, t, config.max_cond_frames)
    unselected = {i: r for i, r in stores.cond.items() if i not in chosen}
    spatial = [(record, config.num_maskmem - 1) for record in chosen.values()]
    for back in range(config.num_maskmem - 1, 0, -1):
        record = _recent(stores, unselected, _frame_back(t, back, config.memory_stride, reverse))
        if record is not None:
            spatial.append((record, back - 1))
    limit = min(config.max_pointers, config.max_pointers if frames is None else frames)
    pointers = [(record, abs(t - i)) for i, record in chosen.items() if (i >= t if reverse else i <= t)]
    for distance in range(1, limit):
        i = t + distance if reverse else t - distance
        if i < 0 or (frames is not None and i >= frames):
            break
        record = _recent(stores, unselected, i)
        if record is not None:
            pointers.append((record, distance))
    return Reading(tuple((r, k) for r, k in spatial if r.mem is not None), tuple(pointers))


def select_records(cond: Mapping[int, Record], t: int, limit: int) -> dict[int, Record]:
    """At most ``limit`` conditioning frames (-1: all): the last before ``t``, the first after it, the closest."""
    if limit == -1 or len(cond) <= limit:
        return dict(cond)
    before = [i for i in cond if i < t]
    after = [i for i in cond if i >= t]
    kept = ([max(before)] if before else []) + ([min(after)] if after else [])
    rest = sorted((i for i in cond if i not in kept), key=lambda i: abs(i - t))
    return {i: cond[i] for i in [*kept, *rest[: limit - len(kept)]]}


def _frame_back(t: int, back: int, stride: int, reverse: bool) -> int:
    """The frame that is ``back`` steps away: the neighbour, then the multiples of ``stride``."""
    if back == 1:
        return t + 1 if reverse else t - 1
    if reverse:
        return -(-(t + 2) // stride) * stride + (back - 2) * stride
    return (t - 2) // stride * stride - (back - 2) * stride


def _recent(stores: Stores, unselected: Mapping[int, Record], i: int) -> Record | None:
    return stores.other.get(i, unselected.get(i))


def keep_recent(stores: Stores, t: int, config: Sam2Config, limit: int) -> None:
    """Drop what no frame after ``t`` of a stream can read, with one frame to spare for a correction of frame ``t``.

    ``limit`` bounds the conditioning frames: the first one and the newest stay.
    """
    spatial = 5 * config.memory_stride + 2
    for i in list(stores.other):
        if i < t - config.max_pointers + 1:
            del stores.other[i]
        elif i < t - spatial:
            stores.other[i].mem = None
        if i < t and i in stores.other:
            stores.other[i].low = None
    for i, record in stores.cond.items():
        if i < t:
            record.low = None
    for i in stores.cond.keys() - set(permanent_frames(list(stores.cond), limit)):
        del stores.cond[i]
