"""The fonts of this machine, as fontconfig lists them, for letters that OpenCV's own fonts lack."""

from __future__ import annotations

import shutil
import subprocess
from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg.types import Array

_SECONDS = 10.0
_MOST = 2000  # fonts that are looked at
_BITMAP_SIZES = (109, 136, 128, 96)  # of fonts of emoji, which have one size
_UNFIT = ("bold", "italic", "oblique", "light", "black", "thin", "mono", "serif", "condensed", "narrow")


class Font(NamedTuple):
    """A file, and the code points that it has: ``starts`` and ``ends`` (inclusive) of ranges, in order."""

    file: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def has(self, letter: str) -> bool:
        """Whether it has a letter."""
        place = bisect_right(self.starts, ord(letter)) - 1
        return place >= 0 and ord(letter) <= self.ends[place]


@lru_cache(maxsize=1)
def installed() -> tuple[Font, ...]:
    """Fonts by how well they suit; none where there is no fontconfig."""
    command = shutil.which("fc-list")
    if command is None:
        return ()
    form = "%{file}\t%{family}\t%{style}\t%{charset}\n"
    try:
        answer = subprocess.run([command, "--format", form], capture_output=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.split("\t") for line in answer.stdout.decode(errors="replace").splitlines()[:_MOST]]
    rows = sorted(
        (row for row in rows if len(row) == 4 and row[0].lower().endswith((".ttf", ".otf", ".ttc"))), key=_fit
    )
    return tuple(font for row in rows if (font := _parse(row[0], row[3])) is not None)


@lru_cache(maxsize=4096)
def font_with(letter: str) -> str | None:
    """The file of the font that suits best of those with a letter."""
    return next((font.file for font in installed() if font.has(letter)), None)


@lru_cache(maxsize=256)
def draw_text(text: str, file: str, size: int, ink: tuple[int, int, int]) -> tuple[Array, int, int, int]:
    """A text in a font of the system, ``size`` pixels high.

    Returns:
        uint8 RGBA (h, w, 4), where it begins to the right of the pen and below the line, and how far the pen moves.

    Raises:
        OSError: the font cannot be used.
    """
    font, scale = _load(file, size)
    left, top, right, bottom = (int(v) for v in font.getbbox(text, anchor="ls"))
    image = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)), (*ink, 0))
    ImageDraw.Draw(image).text((-left, -top), text, fill=(*ink, 255), font=font, anchor="ls", embedded_color=True)
    if scale != 1:
        hw = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(hw, Image.Resampling.LANCZOS)
    return np.asarray(image), round(left * scale), round(top * scale), round(font.getlength(text) * scale)


def _load(file: str, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
    """A font, and the factor from its size to ``size``."""
    try:
        return ImageFont.truetype(file, size), 1.0
    except OSError:
        for fixed in _BITMAP_SIZES:
            try:
                return ImageFont.truetype(file, fixed), size / fixed
            except OSError:
                continue
        raise


def _fit(row: list[str]) -> tuple[int, str]:
    return sum(word in " ".join(row[1:3]).lower() for word in _UNFIT), row[0]


def _parse(file: str, charset: str) -> Font | None:
    try:
        pairs = [part.partition("-") for part in charset.split()]
        ranges = sorted((int(low, 16), int(high or low, 16)) for low, _, high in pairs)
    except ValueError:
        return None
    return Font(file, tuple(low for low, _ in ranges), tuple(high for _, high in ranges))
