"""The video with its masks drawn on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import color_of
from vidseg.outputs.lettering import Lettering
from vidseg.outputs.pyav import needs_pyav
from vidseg.outputs.style import OverlayStyle
from vidseg.types import Array, Frame, VideoInfo

_DIMMED = 0.35
_BLURRED = 1 / 40  # of the smaller side
_SMALLEST_TEXT = 11  # pixels

Point = tuple[int, int]


class OverlaySink:
    """Writes the overlay with the source's timestamps, shape of pixels and sound; a kill loses at most a second."""

    def __init__(
        self, path: Path, info: VideoInfo, style: OverlayStyle | None = None, source: Path | None = None
    ) -> None:
        """Create the file; ``source`` is the file whose sound is taken over.

        Raises:
            OutputError: it cannot be created, or PyAV is missing.
        """
        with needs_pyav("overlay"):
            from vidseg.video.sound import Sound
            from vidseg.video.writer import VideoWriter
        self._painter = Painter(style or OverlayStyle())
        self._writer = VideoWriter(
            path,
            info.width * (2 if self._painter.style.side_by_side else 1),
            info.height,
            fps=info.fps,
            time_base=info.time_base,
            pixel_aspect=info.pixel_aspect,
            sound=None if source is None else Sound.of(source),
        )

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Draw and append one frame."""
        self._writer.write(self._painter.draw(frame.rgb, masks), frame.pts)

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


def draw_masks(rgb: Array, masks: FrameMasks, style: OverlayStyle | None = None) -> Array:
    """A copy of the frame, uint8 (H, W, 3), with coloured masks, their edges, ids and names.

    An object has the colour of its id. Twice as wide where the ``style`` puts the untouched frame beside it.
    """
    return Painter(style or OverlayStyle()).draw(rgb, masks)


def draw_objects(rgb: Array, objects: Sequence[Drawing], style: OverlayStyle | None = None) -> Array:
    """A copy of the frame with objects, the later ones in front, as :func:`draw_masks` draws them."""
    return Painter(style or OverlayStyle()).draw_objects(rgb, 0, objects)


class Painter:
    """Draws the frames of one video in order: it remembers where objects were."""

    def __init__(self, style: OverlayStyle) -> None:
        """A painter of a ``style``."""
        self.style = style
        self._trails: dict[int, deque[tuple[int, Point]]] = {}

    def draw(self, rgb: Array, masks: FrameMasks) -> Array:
        """The frame as :func:`draw_masks` gives it, with the trails up to it."""
        texts = dict(zip(masks.ids, zip(masks.scores.tolist(), masks.labels, strict=True), strict=True))
        return self.draw_objects(
            rgb, masks.frame_index, [Drawing(*window, *texts[window[0]]) for window in masks.windows()]
        )

    def draw_objects(self, rgb: Array, index: int, objects: Sequence[Drawing]) -> Array:
        """The frame of that index with objects, the later ones in front."""
        style = self.style
        shown = [one for one in objects if one.window.size]
        image = self._background(rgb, shown)
        small = min(rgb.shape[:2])
        line = max(1, round(style.contour * small / 400)) if style.contour else 0
        for one in shown:
            _paint(_place(image, one), one.window, color_of(one.object_id), style.fill, line)
        if style.trails:
            self._draw_trails(image, index, shown, max(1, round(small / 300)))
        lettering = Lettering(image, max(_SMALLEST_TEXT, round(style.text * small / 30)))
        for one in shown if style.labels or style.scores else ():  # after all masks, so that no mask covers a text
            parts = [str(one.object_id), one.label or ""] if style.labels else []
            parts += [f"{one.score:.2f}"] if style.scores else []
            height, width = one.window.shape
            box = one.x0, one.y0, one.x0 + width, one.y0 + height
            lettering.write(" ".join(part for part in parts if part), box, color_of(one.object_id))
        return np.hstack([rgb, image]) if style.side_by_side else image

    def _background(self, rgb: Array, shown: Sequence[Drawing]) -> Array:
        """The frame with its background as the style has it; a copy."""
        kind, backdrop = self.style.background, self.style.backdrop
        if kind == "keep":
            return rgb.copy()
        if backdrop is not None:
            around = np.full_like(rgb, backdrop)
        elif kind == "blur":
            around = cv2.GaussianBlur(rgb, (0, 0), max(1.0, min(rgb.shape[:2]) * _BLURRED)).astype(np.uint8)
        else:
            around = rgb if kind == "dim" else np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
            around = (around * (_DIMMED if kind == "dim" else 0.8)).astype(np.uint8)
        for one in shown:
            inside = one.window.astype(np.uint8, order="C")
            cv2.copyTo(np.ascontiguousarray(_place(rgb, one)), inside, _place(around, one))
        return around

    def _draw_trails(self, image: Array, index: int, shown: Sequence[Drawing], line: int) -> None:
        for one in shown:
            rows, columns = np.nonzero(one.window)
            centre = one.x0 + int(columns.mean()), one.y0 + int(rows.mean())
            self._trails.setdefault(one.object_id, deque(maxlen=self.style.trails)).append((index, centre))
        for object_id in list(self._trails):
            trail = self._trails[object_id]
            while trail and trail[0][0] <= index - self.style.trails:
                trail.popleft()
            if not trail:
                del self._trails[object_id]
                continue
            points = [point for _, point in trail]
            for a, b in pairwise(points):
                cv2.line(image, a, b, color_of(object_id), line, cv2.LINE_AA)
            cv2.circle(image, points[-1], 2 * line, color_of(object_id), cv2.FILLED, cv2.LINE_AA)


def _place(image: Array, one: Drawing) -> Array:
    """The window of an object in an image, as a view."""
    height, width = one.window.shape
    return image[one.y0 : one.y0 + height, one.x0 : one.x0 + width]


def _paint(place: Array, mask: npt.NDArray[np.bool_], color: tuple[int, int, int], fill: float, line: int) -> None:
    inside = mask.astype(np.uint8, order="C")
    paint = np.empty(place.shape, np.uint8)
    paint[:] = np.tile(np.array(color, np.uint8), (place.shape[1], 1))
    if fill:
        cv2.copyTo(cv2.addWeighted(place, 1 - fill, paint, fill, 0), inside, place)
    if line:
        kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
        core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        cv2.copyTo(paint, inside - core, place)
