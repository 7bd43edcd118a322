"""The images of the report: a few of the whole video, and where the result looks worst."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import area
from vidseg.outputs.overlay import draw_masks
from vidseg.outputs.style import OverlayStyle
from vidseg.types import Frame

_APART = 10  # frames between two of the worst images
_WEIGHT_OF_CHANGE = 0.5
_LEAST_DOUBT = 0.15
_QUALITY = 80
_STYLE = OverlayStyle(text=1.6)  # to be read in a small image


class Picture(NamedTuple):
    """A small JPEG of a frame with its masks."""

    jpeg: bytes
    why: str = ""
    """What makes the frame doubtful; empty for an image of the whole video."""


class ThumbnailSink:
    """Keeps a few images spread over the whole video, whatever its length, and those with the greatest doubts.

    A frame is doubtful by the lowest score on it, and by how much a mask's area changes from the frame before; a mask
    that appears later than the first frame, or vanishes, counts as a change by half.
    """

    def __init__(self, spread: int = 4, worst: int = 4, height: int = 360) -> None:
        """Keep at most ``spread`` and ``worst`` images, ``height`` pixels high where the frames are higher."""
        self._spread: dict[int, Picture] = {}
        self._worst: dict[int, tuple[float, Picture]] = {}
        self._limit, self._count_of_worst, self._height = spread, worst, height
        self._every, self._count = 1, 0
        self._areas: dict[int, int] = {}

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
        areas = {i: area(rle) for i, rle in zip(masks.ids, masks.rles, strict=True)}
        scores = zip(masks.ids, masks.scores.tolist(), strict=True)
        reasons = [(1 - score, f"object {i}: score {score:.2f}") for i, score in scores if areas[i]]
        for i in areas.keys() | self._areas.keys() if self._count else ():
            now, before = areas.get(i, 0), self._areas.get(i, 0)
            if not now and not before:
                continue
            if not now or not before:
                change, what = 1.0, "vanishes" if before else "appears"
            else:
                change, what = min(abs(math.log2(now / before)), 2.0), f"area x {now / before:.2f} in one frame"
            reasons.append((_WEIGHT_OF_CHANGE * change, f"object {i} {what}"))
        self._areas = {i: pixels for i, pixels in areas.items() if pixels}
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
