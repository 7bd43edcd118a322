"""Texts on frames: any language, and never one over the other.

The letters are those of OpenCV's own fonts: Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese, Japanese, Korean. What
they lack comes from the fonts of this machine, and is left out where none has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from unicodedata import category

import cv2
import numpy as np

from vidseg.names import printable
from vidseg.outputs.system_fonts import draw_text, font_with
from vidseg.types import Array

_WEIGHT = 500  # of the strokes; 400 is regular
_PADDING = 0.3  # of the size, around a text
_LONGEST = 40  # letters
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"


@dataclass
class Lettering:
    """Writes labels on one frame, each beside its object and on free ground."""

    image: Array
    size: int
    """Height of the letters in pixels."""
    _taken: list[tuple[int, int, int, int]] = field(default_factory=list)

    def write(self, text: str, box: Sequence[int], color: tuple[int, int, int]) -> None:
        """A text on its colour, above the box x1, y1, x2, y2, or where there is room near it."""
        text = "".join(letter if letter in _JOINERS else printable(letter) for letter in text)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        pieces = _pieces(text)
        if not pieces:
            return
        height, width = self.image.shape[:2]
        pad = max(2, round(self.size * _PADDING))
        w = sum(_advance(piece, font, self.size) for piece, font in pieces)
        _, up, down = _measure("", self.size)
        w, h = w + 2 * pad, self.size + 2 * pad
        x, y = self._place(w, h, box, width, height)
        self._taken.append((x, y, x + w, y + h))
        cv2.rectangle(self.image, (x, y), (x + w - 1, y + h - 1), color, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)
        below = y + pad + round((self.size + up - down) / 2)
        x += pad
        for piece, font in pieces:
            if font is None:
                cv2.putText(self.image, piece, (x, below), ink, _font(), self.size, _WEIGHT)
            else:
                self._paint(piece, font, x, below, ink)
            x += _advance(piece, font, self.size)

    def _paint(self, text: str, font: str, x: int, y: int, ink: tuple[int, int, int]) -> None:
        """A text in a font of the system, from the pen's place on the line."""
        drawn, right, below, _ = draw_text(text, font, self.size, ink)
        x, y = x + right, y + below
        top, left = max(0, -y), max(0, -x)
        part = self.image[max(0, y) : max(0, y + len(drawn)), max(0, x) : max(0, x + drawn.shape[1])]
        drawn = drawn[top : top + part.shape[0], left : left + part.shape[1]]
        alpha = drawn[..., 3:] / 255
        part[:] = np.rint(part * (1 - alpha) + drawn[..., :3] * alpha)

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


@lru_cache(maxsize=1024)
def _pieces(text: str) -> tuple[tuple[str, str | None], ...]:
    """The text in pieces of one font each: the file of one of the system, None for OpenCV's; without what none has."""
    pieces: list[tuple[str, str | None]] = []
    lost = False
    for letter in text:
        joins = letter in _JOINERS or category(letter).startswith("M")
        if joins and (lost or (pieces and pieces[-1][1] is not None)):
            font = pieces[-1][1] if pieces else None  # belongs to the letter before
        else:
            font = None if _is_known(letter) else font_with(letter)
            lost = font is None and not _is_known(letter)
        if lost:
            continue
        if pieces and pieces[-1][1] == font:
            pieces[-1] = pieces[-1][0] + letter, font
        else:
            pieces.append((letter, font))
    shown = "".join(piece for piece, _ in pieces)
    if " ".join(shown.split()) != shown:
        return _pieces(" ".join(shown.split()))
    return tuple(pieces)


@lru_cache(maxsize=4096)
def _is_known(letter: str) -> bool:
    """Whether OpenCV's fonts have a letter: what they lack is drawn as a question mark."""
    return letter in " ?" or _picture(letter) != _picture("?")


def _picture(letter: str) -> bytes:
    image = np.zeros((24, 32, 3), np.uint8)
    cv2.putText(image, letter, (4, 18), (255, 255, 255), _font(), 16, _WEIGHT)
    return image.tobytes()


def _advance(text: str, font: str | None, size: int) -> int:
    """How far the pen moves, in pixels."""
    return _measure(text, size)[0] if font is None else draw_text(text, font, size, (0, 0, 0))[3]
