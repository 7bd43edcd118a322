"""The video with its masks drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import color_of
from vidseg.types import Array, Frame, VideoInfo
from vidseg.video import VideoWriter

_ALPHA = 0.45
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class OverlaySink:
    """Writes the overlay with the source's timestamps; a kill loses at most the last second."""

    def __init__(self, path: Path, info: VideoInfo) -> None:
        """Create the file.

        Raises:
            OutputError: it cannot be created.
        """
        self._writer = VideoWriter(
            path,
            info.width,
            info.height,
            fps=info.fps,
            time_base=info.time_base,
            pixel_aspect=info.pixel_aspect,
        )

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Draw and append one frame."""
        self._writer.write(draw_masks(frame.rgb, masks), frame.pts)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class Drawing(NamedTuple):
    """An object to draw: its mask (h, w) in a window whose first pixel is (x0, y0) of the frame, and its text."""

    object_id: int
    window: npt.NDArray[np.bool_]
    y0: int
    x0: int
    score: float
    label: str | None = None


def draw_masks(rgb: Array, masks: FrameMasks) -> Array:
    """A copy of the frame, uint8 (H, W, 3), with coloured masks, their edges, and ids with scores."""
    texts = dict(zip(masks.ids, zip(masks.scores.tolist(), masks.labels, strict=True), strict=True))
    return draw_objects(rgb, [Drawing(*window, *texts[window[0]]) for window in masks.windows()])


def draw_objects(rgb: Array, objects: Sequence[Drawing]) -> Array:
    """A copy of the frame with objects, the later ones in front.

    An object has the colour of its id. Only pixels inside the windows are computed.
    """
    image = rgb.copy()
    line = max(1, round(min(rgb.shape[:2]) / 400))
    for one in objects:
        height, width = one.window.shape
        place = image[one.y0 : one.y0 + height, one.x0 : one.x0 + width]
        _paint(place, one.window, np.array(color_of(one.object_id), np.uint8), line)
    for one in objects:  # after all masks, so that no mask covers a text
        text = f"{one.object_id} {one.label or ''} {one.score:.2f}".replace("  ", " ")
        _write(image, text, one.x0, one.y0, np.array(color_of(one.object_id), np.uint8))
    return image


def _paint(place: Array, mask: npt.NDArray[np.bool_], color: Array, line: int) -> None:
    inside = mask.astype(np.uint8, order="C")
    tints = np.rint(np.arange(256)[:, None] * (1 - _ALPHA) + color * _ALPHA).astype(np.uint8)  # every value, once
    cv2.copyTo(cv2.LUT(place, tints[:, None]), inside, place)
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    place[inside > core] = color


def _write(image: Array, text: str, x: int, y: int, color: Array) -> None:
    scale = max(0.4, min(image.shape[:2]) / 1000)
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    (w, h), below = cv2.getTextSize(text, _FONT, scale, 1)
    x, y = max(0, min(x, image.shape[1] - w)), max(h + below, y)
    cv2.rectangle(image, (x, y - h - below), (x + w, y), tuple(int(c) for c in color), cv2.FILLED)
    ink = 0 if color @ np.array([0.299, 0.587, 0.114]) > 128 else 255
    cv2.putText(image, text, (x, y - below // 2), _FONT, scale, (ink, ink, ink), 1, cv2.LINE_AA)
