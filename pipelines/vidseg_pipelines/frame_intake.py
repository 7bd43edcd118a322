"""What a user gives as a frame: uint8 RGB or BGR arrays, PIL images, frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidseg.errors import UsageError
from vidseg.types import Frame

FrameLike: TypeAlias = Frame | npt.NDArray[np.uint8] | Image.Image
"""A frame, a uint8 RGB array (H, W, 3), or a PIL image."""


class FrameIntake:
    """Makes frames of one size, with growing indices, of what a user gives. An error changes nothing."""

    def __init__(self, *, fps: Fraction | float = 24, bgr: bool = False) -> None:
        """``fps`` is the rate that gives arrays and images their times; ``bgr``: arrays are BGR, as OpenCV has them.

        Raises:
            UsageError: a rate that is none.
        """
        self.fps = exact_rate(fps)
        self._bgr = bgr
        self.next_index = 0
        self.size: tuple[int, int] | None = None

    def check(self, item: FrameLike) -> Frame:
        """The next frame.

        Raises:
            UsageError: no frame, one of another size than the last, or one whose index does not grow.
        """
        frame = as_frame(item, self.next_index, self.fps, bgr=self._bgr)
        if frame.index < self.next_index:
            last = self.next_index - 1
            raise UsageError(f"frame {frame.index} comes after frame {last}: indices must increase")
        if self.size is not None and frame.hw != self.size:
            (h, w), (height, width) = frame.hw, self.size
            raise UsageError(f"frame {frame.index} is {w}x{h}, the first was {width}x{height}: one size expected")
        return frame

    def accept(self, frame: Frame) -> None:
        """Take note of a frame that :meth:`check` gave."""
        self.next_index, self.size = frame.index + 1, frame.hw

    def all(self, items: Iterable[FrameLike]) -> Iterator[Frame]:
        """Many frames."""
        for item in items:
            frame = self.check(item)
            self.accept(frame)
            yield frame


def exact_rate(fps: Any) -> Fraction:
    """``fps`` as an exact number.

    Raises:
        UsageError: it is no number over 0.
    """
    try:
        rate = Fraction(fps)
    except (TypeError, ValueError, OverflowError):
        rate = Fraction(0)
    if rate <= 0:
        raise UsageError(f"fps {fps}: a number over 0 expected")
    return rate


def as_frame(item: Any, index: int, fps: Fraction, *, bgr: bool = False) -> Frame:
    """A frame of the number ``index``, unless ``item`` is one already; its pixels are its own.

    They are copied because cameras write the next frame into the same array, and users draw on theirs, while later
    calls, and batches, still compute with the pixels that came.

    Raises:
        UsageError: something else, or an array that is not uint8 (H, W, 3).
    """
    if isinstance(item, Frame):
        return replace(item, rgb=np.array(item.rgb, order="C"))
    if isinstance(item, Image.Image):
        rgb = np.asarray(item.convert("RGB"))
    elif isinstance(item, np.ndarray):
        rgb = item[..., ::-1] if bgr and item.ndim == 3 else item
    else:
        kind = type(item).__name__
        raise UsageError(f"frame {index}: a uint8 RGB array (H, W, 3), a PIL image or a Frame expected, got {kind}")
    return Frame(index, index, float(index / fps), np.array(rgb, order="C"))
