"""Which values of deep images (10 to 32 bits, floating point) are black and white, found once for a whole source.

Cameras write 10, 12 or 14 bits into 16-bit files, simulators and microscopes floating point: the file does not say
which value is white. One range for all frames keeps them from flickering.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from vidseg.types import Array

Levels = tuple[float, float]
"""The values that become 0 and 255."""

OUTSIDE = "frames have values outside the range of the others and were cut to it"

_FLOAT_RANGES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_OVERSHOOT = 1.05  # resampling makes values a little above the white of a floating-point image
_TAILS = (0.1, 99.9)  # percentiles
_FILLED = 0.25  # a smaller part of the range than this is stretched
_MAX_OUTSIDE = 0.01
_PIXELS = 1 << 20  # of a frame that are looked at


def find_levels(samples: Iterable[Array]) -> Levels:
    """The range of deep images, arrays of any shape and of whole or floating-point numbers.

    From 0 to the white of the bits that are used (10 bits: 1023; floating point: 1, 255, ...). Where the values fill
    less than a quarter of that, or are negative, from their 0.1th to their 99.9th percentile.
    """
    values = [_some(sample) for sample in samples]
    pooled = np.concatenate(values) if values else np.zeros(0)
    if not len(pooled):
        return 0.0, 1.0
    least, most = float(pooled.min()), float(pooled.max())
    if pooled.dtype.kind == "f":
        white = next((white for white in _FLOAT_RANGES if most <= _OVERSHOOT * white), most)
    else:
        white = float((1 << max(8, int(most).bit_length())) - 1)
    low, high = (float(value) for value in np.percentile(pooled, _TAILS))
    if (least >= 0 and high - low >= _FILLED * white) or low == high:
        return 0.0, white
    return low, high


def to_uint8(pixels: Array, levels: Levels) -> npt.NDArray[np.uint8]:
    """Deep values as 0..255, rounded; what lies outside the range is cut to it, what is no number is 0."""
    low, high = levels
    if pixels.dtype == np.uint16:
        return _scaled(np.arange(1 << 16, dtype=np.float32), low, high)[pixels]
    return _scaled(pixels.astype(np.float32), low, high)


def outside(pixels: Array, levels: Levels) -> bool:
    """Whether more than one in a hundred pixels lies outside the range."""
    values = _some(pixels)
    return bool(len(values)) and float(np.mean((values < levels[0]) | (values > levels[1]))) > _MAX_OUTSIDE


def _scaled(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0), 0, 255)).astype(np.uint8)


def _some(pixels: Array) -> Array:
    """Finite values of evenly spaced pixels."""
    flat = np.ascontiguousarray(pixels.reshape(-1)[:: max(1, pixels.size // _PIXELS)])
    return flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
