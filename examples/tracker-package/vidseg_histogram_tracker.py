"""Follows objects by their colours: how often a colour is inside the object, and how often around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vidseg.errors import UsageError
from vidseg.masks.boxes import mask_box
from vidseg.options import from_mapping
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo


@dataclass(frozen=True)
class Options:
    """``--tracker-option blur=N``."""

    blur: int = 5
    """Side in pixels of the box filter over the probabilities."""

    def __post_init__(self) -> None:
        """Check values."""
        if self.blur < 1:
            raise UsageError(f"tracker option blur {self.blur}: expected 1 or more")


def build(
    options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool
) -> HistogramTracker:
    """The entry point. Unknown options are a UsageError; this tracker needs no device and no weights."""
    return HistogramTracker(from_mapping(Options, options, where="histogram tracker"))


class HistogramTracker:
    """An object is a table of 4096 colours, from the last mask that was given, and the box where it was last seen."""

    lookahead, wants_masks, finds_objects, can_remove = 0, True, False, True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tables: dict[int, np.ndarray] = {}
        self.boxes: dict[int, np.ndarray] = {}

    def start(self, video: VideoInfo) -> None:
        self.tables, self.boxes = {}, {}

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        colours = (frame.rgb >> 4).astype(np.int64) @ np.array([256, 16, 1])
        given = {p.object_id: p.mask for p in prompts if p.mask is not None}
        for i, mask in given.items():
            inside, outside = (np.bincount(colours[m], minlength=4096) for m in (mask, ~mask))
            self.tables[i] = (inside / np.maximum(inside + outside, 1)).astype(np.float32)
        ids, boxes, masks = [], [], [np.zeros((0, *frame.hw), np.float32)]
        for i in self.tables:
            found = given[i].astype(np.float32) if i in given else self._look(colours, i)
            if (found > 0.5).any():  # an object that is not seen is left out, and keeps its id and its last box
                self.boxes[i] = mask_box(found > 0.5)
                ids, boxes, masks = [*ids, i], [*boxes, self.boxes[i]], [*masks, found[None]]
        return [
            Tracks(
                frame.index,
                np.array(ids, np.int64),
                np.array(boxes, np.float32).reshape(-1, 4),
                np.ones(len(ids), np.float32),
                masks=torch.from_numpy(np.concatenate(masks)),
                exclusive=False,  # objects know nothing of each other
            )
        ]

    def _look(self, colours: np.ndarray, i: int) -> np.ndarray:
        """Probability of object ``i`` near its last box, 0 elsewhere."""
        x1, y1, x2, y2 = self.boxes[i].astype(int)
        margin = 4 + max(x2 - x1, y2 - y1) // 2
        window = np.s_[max(y1 - margin, 0) : y2 + margin, max(x1 - margin, 0) : x2 + margin]
        found = np.zeros(colours.shape, np.float32)
        found[window] = cv2.blur(self.tables[i][colours[window]], (self.options.blur, self.options.blur))
        return found.clip(0, 1)

    def finish(self) -> list[Tracks]:
        return []

    def remove(self, ids: Sequence[int]) -> None:
        for i in ids:
            self.tables.pop(i, None)
            self.boxes.pop(i, None)

    def state_dict(self) -> State:
        parts = {"table": self.tables, "box": self.boxes}
        return {f"{name}.{i}": torch.from_numpy(v.copy()) for name, part in parts.items() for i, v in part.items()}

    def load_state_dict(self, state: State) -> None:
        self.tables, self.boxes = {}, {}
        for key, value in state.items():
            name, _, i = key.partition(".")
            (self.tables if name == "table" else self.boxes)[int(i)] = torch.as_tensor(value).numpy().copy()
