"""Texts on frames: any language, and never one over the other.

The letters are those of OpenCV's own fonts: Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese, Japanese, Korean. What
they lack is a question mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from vidseg.names import printable
from vidseg.types import Array

_WEIGHT = 500  # of the strokes; 400 is regular
_PADDING = 0.3  # of the size, around a text
_LONGEST = 40  # letters


@dataclass
class Lettering:
    """Writes labels on one frame, each beside its object and on free ground."""

    image: Array
    size: int
    """Height of the letters in pixels."""
    _taken: list[tuple[int, int, int, int]] = field(default_factory=list)

    def write(self, text: str, box: Sequence[int], color: tuple[int, int, int]) -> None:
        """A text on its colour, above the box x1, y1, x2, y2, or where there is room near it."""
        text = printable(text)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        height, width = self.image.shape[:2]
        pad = max(2, round(self.size * _PADDING))
        w, up, down = _measure(text, self.size)
        w, h = w + 2 * pad, self.size + 2 * pad
        x, y = self._place(w, h, box, width, height)
        self._taken.append((x, y, x + w, y + h))
        cv2.rectangle(self.image, (x, y), (x + w - 1, y + h - 1), color, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)
        below = y + pad + round((self.size + up - down) / 2)
        cv2.putText(self.image, text, (x + pad, below), ink, _font(), self.size, _WEIGHT)

    def _place(self, w: int, h: int, box: Sequence[int], width: int, height: int) -> tuple[int, int]:
        """The first free place: above, inside at the top, below, right, left, then down the frame."""
        x1, y1, x2, y2 = box
        near = [(x1, y1 - h), (x1, y1), (x1, y2), (x2, y1), (x1 - w, y1)]
        rows = [(x1, y1 + k * h) for k in range(1, height // h + 1)] + [
            (x1, y1 - k * h) for k in range(2, height // h + 1)
        ]
        columns = [(x, k * h) for x in range(0, max(1, width - w), max(1, w)) for k in range(height // h)]
        best = max(0, min(x1, width - w)), max(0, min(y1 - h, height - h))
        for x, y in (*near, *rows, *columns):
            x = max(0, min(x, width - w))
            if 0 <= y <= height - h and not any(
                x < c and a < x + w and y < d and b < y + h for a, b, c, d in self._taken
            ):
                return x, y
        return best


@lru_cache(maxsize=1)
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


@lru_cache(maxsize=1024)
def _measure(text: str, size: int) -> tuple[int, int, int]:
    """Width of a text, and how far capital letters reach above and below the line."""
    x, _, w, _ = cv2.getTextSize((100_000, 1_000), text, (0, 0), _font(), size, _WEIGHT)
    _, y, _, h = cv2.getTextSize((100_000, 1_000), "Hg", (0, 0), _font(), size, _WEIGHT)
    return int(x + w), int(-y), int(y + h)
