"""Ids for detections that have none: frame by frame, the assignment with the largest sum of overlaps."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from vidseg.masks.boxes import box_iou
from vidseg.types import State


class IouMatcher:
    """Follows boxes by overlap with their last place; an object may be missing for ``max_gap`` frames.

    Objects of different labels never match. Ids count from 1 and are never reused.
    """

    def __init__(self, *, iou: float = 0.3, max_gap: int = 30) -> None:
        """``iou``: least overlap with the last box, in 0..1."""
        self._iou, self._max_gap = iou, max_gap
        self._next_id = 1
        self._ids: list[int] = []
        self._seen: list[int] = []
        self._labels: list[str | None] = []
        self._boxes: npt.NDArray[np.float32] = np.zeros((0, 4), np.float32)

    def step(
        self, frame_index: int, boxes: npt.NDArray[np.float32], labels: Sequence[str | None]
    ) -> npt.NDArray[np.int64]:
        """Ids (N,) of the boxes (N, 4) of the next frame."""
        keep = [k for k, seen in enumerate(self._seen) if frame_index - seen <= self._max_gap + 1]
        self._take(keep)
        overlap = box_iou(self._boxes, boxes)
        same = np.array([[a == b for b in labels] for a in self._labels], np.bool_).reshape(overlap.shape)
        overlap = np.where(same & (overlap >= self._iou), overlap, 0.0)
        ids = np.zeros(len(boxes), np.int64)
        for known, new in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
            if overlap[known, new] > 0:
                ids[new] = self._ids[known]
                self._boxes[known], self._seen[known] = boxes[new], frame_index
        for new in np.flatnonzero(ids == 0):
            ids[new] = self._next_id
            self._ids.append(self._next_id)
            self._seen.append(frame_index)
            self._labels.append(labels[int(new)])
            self._boxes = np.concatenate([self._boxes, boxes[new : new + 1]])
            self._next_id += 1
        return ids

    def state_dict(self) -> State:
        """Everything that the next step depends on."""
        return {
            "next_id": self._next_id,
            "labels": json.dumps(self._labels),
            "ids": torch.tensor(self._ids, dtype=torch.int64),
            "seen": torch.tensor(self._seen, dtype=torch.int64),
            "boxes": torch.from_numpy(self._boxes.copy()),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._next_id = int(state["next_id"])
        self._labels = json.loads(str(state["labels"]))
        self._ids = torch.as_tensor(state["ids"]).tolist()
        self._seen = torch.as_tensor(state["seen"]).tolist()
        self._boxes = torch.as_tensor(state["boxes"]).numpy().copy()

    def _take(self, keep: Sequence[int]) -> None:
        self._ids = [self._ids[k] for k in keep]
        self._seen = [self._seen[k] for k in keep]
        self._labels = [self._labels[k] for k in keep]
        self._boxes = self._boxes[list(keep)]
