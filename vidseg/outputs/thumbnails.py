"""The images of the report: a few of the whole video, and where the result looks worst."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import reason, trust
from vidseg.outputs.overlay import draw_masks
from vidseg.outputs.style import OverlayStyle
from vidseg.types import Frame

_APART = 10  # frames between two of the worst images
_VANISHED = 0.4
_LEAST_DOUBT = 0.2
_QUALITY = 80
_STYLE = OverlayStyle(text=1.6)  # to be read in a small image


class Picture(NamedTuple):
    """A small JPEG of a frame with its masks."""

    jpeg: bytes
    why: str = ""
    """What makes the frame doubtful; empty for an image of the whole video."""


class ThumbnailSink:
    """Keeps a few images spread over the whole video, whatever its length, and those with the greatest doubts.

    A frame is doubtful by the least trusted mask on it (:mod:`vidseg.masks.trust`), and where a mask vanishes.
    """

    def __init__(self, spread: int = 4, worst: int = 4, height: int = 360) -> None:
        """Keep at most ``spread`` and ``worst`` images, ``height`` pixels high where the frames are higher."""
        self._spread: dict[int, Picture] = {}
        self._worst: dict[int, tuple[float, Picture]] = {}
        self._limit, self._count_of_worst, self._height = spread, worst, height
        self._every, self._count = 1, 0
        self._names: dict[int, str] = {}
        """Of the objects on the frame before."""

    @property
    def pictures(self) -> dict[int, Picture]:
        """By frame index; a doubtful frame is there once."""
        return {**self._spread, **{index: picture for index, (_, picture) in self._worst.items()}}

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Take an image when its turn comes, or when the frame is among the most doubtful."""
        doubt, why = self._doubt(masks)
        if doubt >= _LEAST_DOUBT:
            self._take_worst(frame, masks, doubt, why)
        if self._count % self._every == 0:
            if len(self._spread) == self._limit:  # every other one goes and turns get rarer
                self._spread = dict(list(self._spread.items())[::2])
                self._every *= 2
            if self._count % self._every == 0:
                self._spread[frame.index] = Picture(self._jpeg(frame, masks))
        self._count += 1

    def close(self) -> None:
        """Nothing to finish."""

    def _doubt(self, masks: FrameMasks) -> tuple[float, str]:
        """How doubtful a frame is, and why."""
        names = {i: label or f"object {i}" for i, label in zip(masks.ids, masks.labels, strict=True)}
        seen = zip(names.values(), masks.signals, masks.scores.tolist(), strict=True)
        reasons = [(1 - trust(signals, score), f"{name}: {reason(signals, score)}") for name, signals, score in seen]
        reasons += [(_VANISHED, f"{name}: vanishes") for i, name in self._names.items() if i not in names]
        self._names = names
        return max(reasons, default=(0.0, ""))

    def _take_worst(self, frame: Frame, masks: FrameMasks, doubt: float, why: str) -> None:
        near = [i for i in self._worst if frame.index - i < _APART]
        rivals = near or (list(self._worst) if len(self._worst) == self._count_of_worst else [])
        if rivals:
            least = min(rivals, key=lambda i: self._worst[i][0])
            if self._worst[least][0] >= doubt:
                return
            del self._worst[least]
        self._worst[frame.index] = doubt, Picture(self._jpeg(frame, masks), why)

    def _jpeg(self, frame: Frame, masks: FrameMasks) -> bytes:
        height, width = frame.hw
        scale = min(1.0, self._height / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        drawn = np.asarray(
            cv2.resize(draw_masks(frame.rgb, masks, _STYLE), size, interpolation=cv2.INTER_AREA), np.uint8
        )
        return cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
