"""One door for every kind of input."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from vidseg.types import Source, VideoInfo
from vidseg.video.container import PIXEL_LIMIT
from vidseg.video.images import IMAGE_SUFFIXES, ImageSource
from vidseg.video.reader import VideoSource


def open_source(
    path: str | Path,
    *,
    frames: slice | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    image_fps: Fraction = Fraction(24),
    threads: int = 1,
) -> Source:
    """Open a video file, an image, a folder of images, or standard input (``"-"``).

    Args:
        path: the input.
        frames: only frames ``A <= index < B`` of the input; they keep their indices.
        pixel_limit: frames with more pixels are refused before memory is taken for them.
        image_fps: rate given to images, which have none.
        threads: decoder threads. One keeps the pixels of damaged videos the same in every run.

    Raises:
        InputError: one line that says why the input cannot be read.
    """
    file = Path(path)
    if str(path) != "-" and (file.is_dir() or (file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES)):
        return ImageSource(file, frames=frames, pixel_limit=pixel_limit, fps=image_fps)
    return VideoSource(str(path), frames=frames, pixel_limit=pixel_limit, threads=threads)


def probe(path: str | Path, *, pixel_limit: int = PIXEL_LIMIT) -> VideoInfo:
    """What is known of an input without reading all of it; the same errors as :func:`open_source`."""
    source = open_source(path, pixel_limit=pixel_limit)
    source.close()
    return source.info
