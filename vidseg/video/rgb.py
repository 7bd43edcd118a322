"""Decoded frames as RGB of 8 bits, upright."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg.errors import InputError
from vidseg.types import Array
from vidseg.video.damage import Damage
from vidseg.video.levels import OUTSIDE, Levels, find_levels, outside, to_uint8
from vidseg.video.orientation import Orientation

SAMPLES = 8
"""Frames, at its beginning and spread over it, from which the range of a deep video is found."""

_UNSPECIFIED = 2  # of colour tags, ISO/IEC 23091-2
_LIMITED_RANGE = 1


class RgbConverter:
    """Turns the frames of one video into arrays, uint8 (H, W, 3)."""

    def __init__(
        self, name: str, orientation: Orientation, levels: Levels | None, damage: Damage, remarks: Damage
    ) -> None:
        """``levels`` is the range of a deep video; ``damage`` and ``remarks`` count what is wrong with frames."""
        self._name, self._orientation, self._levels = name, orientation, levels
        self._damage, self._remarks = damage, remarks

    def convert(self, decoded: VideoFrame) -> Array:
        """Pixels with the stream's own colour matrix and range, turned as the container asks.

        Raises:
            InputError: a pixel format that FFmpeg cannot convert.
        """
        if self._levels is None or not is_deep(decoded):
            return self._orientation.apply(self._by_ffmpeg(decoded))
        values = np.asarray(decoded.to_ndarray())
        if outside(values, self._levels):
            self._remarks.add(OUTSIDE)
        rgb = to_uint8(values, self._levels)
        return self._orientation.apply(rgb if rgb.ndim == 3 else np.repeat(rgb[:, :, None], 3, axis=2))

    def _by_ffmpeg(self, decoded: VideoFrame) -> Array:
        """Colour tags that FFmpeg cannot convert from (damaged, or rare ones) are set aside."""
        try:
            return np.asarray(decoded.to_ndarray(format="rgb24", threads=1))
        except (av.FFmpegError, ValueError):
            self._damage.add("frames with colour tags that were ignored")
        decoded.colorspace = decoded.color_trc = decoded.color_primaries = _UNSPECIFIED
        try:
            return np.asarray(decoded.to_ndarray(format="rgb24", threads=1))
        except (av.FFmpegError, ValueError) as error:
            kind = decoded.format.name
            raise InputError(f"{self._name}: frames of the kind '{kind}' cannot be turned into RGB") from error


def is_deep(frame: VideoFrame) -> bool:
    """Grey or RGB of more than 8 bits, whose white need not be the largest value; YUV keeps to its standards."""
    kind = frame.format
    plain = kind.name.startswith(("gray", "gbrp", "rgb48"))
    return plain and kind.components[0].bits > 8 and frame.color_range != _LIMITED_RANGE


def levels_of(frames: Iterable[VideoFrame]) -> Levels:
    """The range of a deep video from some of its frames."""
    return find_levels(np.asarray(frame.to_ndarray()) for frame in frames if is_deep(frame))


def sample(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The first frames of a file, and as many spread over its length, where it can be searched."""
    with contextlib.suppress(av.FFmpegError, ValueError):
        yield from islice(container.decode(stream), SAMPLES)
    for place in range(1, SAMPLES):
        with contextlib.suppress(av.FFmpegError, ValueError):
            container.seek((container.start_time or 0) + (container.duration or 0) * place // SAMPLES)
            yield from islice(container.decode(stream), 1)
