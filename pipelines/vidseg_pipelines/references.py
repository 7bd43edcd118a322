"""What objects were like on the last frame that is surely right: size and colours, to compare later frames with.

The reference of an object is the last frame on which the user gave or corrected it; of one that the user never touched,
the first frame on which it was seen. A few numbers per object are kept, of those followed or visible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import Signals, ratio, rounded
from vidseg.types import Frame, State

_LEVELS = 4
"""Of every colour channel in a histogram."""
_SAMPLES = 64
"""Pixels per side of a box that are looked at, at most."""


class _Looks(NamedTuple):
    """An object on a frame: pixels, width and height of its box, and shares (64,) of colours."""

    area: int
    width: float
    height: float
    colors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Reference:
    looks: _Looks
    frame: int | None
    """Where the user said so."""


class References:
    """References of the objects of one video, and their areas on the frame before."""

    def __init__(self) -> None:
        self._known: dict[int, _Reference] = {}
        self._areas: dict[int, int] = {}

    def compare(
        self, frame: Frame, masks: FrameMasks, prompted: Collection[int], followed: Collection[int]
    ) -> FrameMasks:
        """The masks of the next frame, with what changed added to their signals.

        Args:
            frame: what the masks are of.
            masks: with or without signals.
            prompted: ids that the user gives or corrects on this frame.
            followed: ids that are not forgotten while they are not visible.
        """
        seen = {i: _looks(frame, masks, row) for row, i in enumerate(masks.ids)}
        for i, looks in seen.items():
            if i in prompted or i not in self._known:
                self._known[i] = _Reference(looks, frame.index if i in prompted else None)
        signals = [
            self._changed(frame.index, i, signals or Signals(), seen[i])
            for i, signals in zip(masks.ids, masks.signals, strict=True)
        ]
        self._areas = {i: looks.area for i, looks in seen.items()}
        self._known = {i: one for i, one in self._known.items() if i in followed or i in seen}
        return masks.with_signals(signals)

    def _changed(self, frame: int, object_id: int, signals: Signals, now: _Looks) -> Signals:
        then, since = self._known[object_id].looks, self._known[object_id].frame
        inside = min(now.width, then.width) * min(now.height, then.height)
        union = now.width * now.height + then.width * then.height - inside
        likeness = float(np.sqrt(now.colors * then.colors).sum())
        before = self._areas.get(object_id)
        return replace(
            signals,
            area_change=ratio(now.area, then.area),
            box_change=rounded(1 - inside / union),
            look_change=rounded(max(0.0, 1 - likeness) ** 0.5),
            area_jump=None if before is None else ratio(now.area, before),
            since=None if since is None else frame - since,
        )

    def state_dict(self) -> State:
        """All of it as tensors and scalars."""
        state: State = {f"area.{i}": area for i, area in self._areas.items()}
        for i, one in self._known.items():
            looks, frame = one.looks, -1 if one.frame is None else one.frame
            numbers = np.array([frame, looks.area, looks.width, looks.height, *looks.colors], np.float64)
            state[f"looks.{i}"] = torch.from_numpy(numbers)
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor | int | float | str]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._known, self._areas = {}, {}
        for name, value in state.items():
            kind, _, number = name.partition(".")
            if kind == "area":
                self._areas[int(number)] = int(value)
            elif isinstance(value, torch.Tensor):
                frame, area, width, height, *colors = value.tolist()
                looks = _Looks(int(area), width, height, np.array(colors, np.float32))
                self._known[int(number)] = _Reference(looks, None if frame < 0 else int(frame))


def _looks(frame: Frame, masks: FrameMasks, row: int) -> _Looks:
    x1, y1, x2, y2 = (int(v) for v in masks.boxes[row])
    label_map, object_id = masks.label_map, masks.ids[row]
    area = int(np.count_nonzero(label_map[y1:y2, x1:x2] == object_id))
    places = slice(y1, y2, -(-(y2 - y1) // _SAMPLES)), slice(x1, x2, -(-(x2 - x1) // _SAMPLES))
    chosen = label_map[places] == object_id
    pixels = frame.rgb[places][chosen] if chosen.any() else frame.rgb[y1:y2, x1:x2].reshape(-1, 3)
    codes = (pixels // (256 // _LEVELS)).astype(np.intp) @ np.array([_LEVELS**2, _LEVELS, 1])
    counts = np.bincount(codes, minlength=_LEVELS**3)
    return _Looks(area, float(x2 - x1), float(y2 - y1), (counts / counts.sum()).astype(np.float32))
