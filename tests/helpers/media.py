"""Small synthetic videos whose frames carry their number as a bar code."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 120, 64  # ten bars of 12 pixels; the lower part is a moving picture


def barcode_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """RGB picture: the upper three quarters are ``BITS`` bars (white = 1, lowest bit left), the rest moves."""
    bits = (number >> np.arange(BITS)) & 1
    columns = bits[np.minimum(np.arange(width) * BITS // width, BITS - 1)] * 200 + 28
    image = np.broadcast_to(columns[None, :, None], (height, width, 3)).astype(np.uint8).copy()
    ramp = (np.arange(width) * 2 + number * 9) % 256
    image[height * 3 // 4 :] = np.stack([ramp, ramp[::-1], np.full(width, 90)], axis=-1)
    return image


def read_barcode(rgb: np.ndarray) -> int:
    """The number in a picture from :func:`barcode_frame`."""
    height, width = rgb.shape[:2]
    centers = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    bits = rgb[height // 4 : height // 2, centers].mean(axis=(0, 2)) > 128
    return int((bits << np.arange(BITS)).sum())


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    container_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames; the container follows from the suffix of ``path``."""
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = (pts[number] if pts else number), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def barcode_video(path: Path, count: int = 40, **keywords: object) -> Path:
    """A video of ``count`` bar codes 0, 1, 2, ...; keywords as for :func:`write_video`."""
    return write_video(path, [barcode_frame(n) for n in range(count)], **keywords)  # type: ignore[arg-type]


def break_middle(path: Path, share: float = 0.1) -> Path:
    """Overwrite a share of the bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    start, length = int(len(data) * (1 - share) / 2), int(len(data) * share)
    data[start : start + length] = b"U" * length
    path.write_bytes(data)
    return path


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes inside the block: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
