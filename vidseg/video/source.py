"""One door for every kind of input."""

from __future__ import annotations

import os
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

from vidseg.address import parse_address
from vidseg.errors import InputError, UsageError
from vidseg.limits import PIXEL_LIMIT
from vidseg.types import Source, VideoInfo
from vidseg.video.backend import BackendSource
from vidseg.video.folders import video_of
from vidseg.video.images import IMAGE_SUFFIXES, ImageSource
from vidseg.video.levels import Levels
from vidseg.video.live import DEFAULT_BACKOFF, Backoff, LiveSource
from vidseg.video.reader import VideoSource
from vidseg.video.watchdog import READ_TIMEOUT_S, Watchdog


def open_source(
    path: str | Path,
    *,
    frames: slice | None = None,
    stream: int | None = None,
    deinterlace: bool = False,
    pixel_limit: int = PIXEL_LIMIT,
    image_fps: Fraction = Fraction(24),
    threads: int = 1,
    limit_s: float = READ_TIMEOUT_S,
    reader: Literal["pyav", "decord", "torchcodec"] = "pyav",
    drop: Literal["auto", "oldest", "none"] = "auto",
    backoff: Backoff = DEFAULT_BACKOFF,
    offline: bool = False,
) -> Source:
    """Open a video file, an image, a folder of images or of one video, standard input (``"-"``), a camera or a stream.

    Args:
        path: the input; ``camera:0``, and URLs that begin with one of :data:`vidseg.address.SCHEMES`.
        frames: only frames ``A <= index < B`` of the input; they keep their indices.
        stream: number of the video stream in its file, as ffprobe shows it; default: the main one.
        deinterlace: make one picture of the two fields of each frame.
        pixel_limit: frames with more pixels are refused before memory is taken for them.
        image_fps: rate given to images, which have none.
        threads: decoder threads. One keeps the pixels of damaged videos the same in every run.
        limit_s: seconds that opening the input, or its next frame, may take.
        reader: what decodes a video file: PyAV, or another package in a process of its own, checked against PyAV.
        drop: ``oldest`` leaves out frames of a live source that wait longest when they come too fast, ``none`` lets the
            source wait; ``auto`` is ``oldest`` for cameras and streams and ``none`` for standard input.
        backoff: how a lost camera or stream is connected to again.
        offline: refuse streams.

    Raises:
        InputError: one line that says why the input cannot be read.
        UsageError: ``reader``, ``drop``, ``stream`` or ``deinterlace`` does not fit the input.
    """
    address, notes = parse_address(str(path)), list[str]()
    if address.kind == "file" and os.path.isdir(address.url):  # noqa: PTH112  (False for names that no file can have)
        video, notes = video_of(Path(address.url))
        address = address if video is None else parse_address(str(video))
    file = Path(address.url) if address.kind == "file" else None
    is_images = os.path.isdir(address.url) or (  # noqa: PTH112  (False for names that no file can have)
        os.path.isfile(address.url) and Path(address.url).suffix.lower() in IMAGE_SUFFIXES  # noqa: PTH113
    )
    if offline and address.kind == "stream":
        raise InputError(f"{address.shown}: a remote input, which --offline forbids")
    if reader != "pyav" and (file is None or is_images):
        raise UsageError(f"--reader {reader} reads video files only; leave it out for {address.shown}")
    if drop == "oldest" and file is not None:
        raise UsageError(f"--drop oldest is for cameras, streams and standard input; {address.shown} is a file")
    if stream is not None or deinterlace:
        option = "--deinterlace" if stream is None else f"--stream {stream}"
        if reader != "pyav":
            raise UsageError(f"{option} and --reader {reader} exclude each other")
        if is_images:
            raise UsageError(f"{option} is for videos; {address.shown} holds pictures")
    if file is not None and is_images:
        images = ImageSource(file, frames=frames, pixel_limit=pixel_limit, fps=image_fps, watchdog=Watchdog(limit_s))
        images.notes += notes
        return images

    def connect(watchdog: Watchdog, levels: Levels | None = None) -> VideoSource:
        return VideoSource(
            address,
            frames=frames,
            stream=stream,
            deinterlace=deinterlace,
            pixel_limit=pixel_limit,
            levels=levels,
            threads=threads,
            watchdog=watchdog,
        )

    if reader != "pyav":
        decoded = BackendSource(reader, address, pixel_limit=pixel_limit, frames=frames, limit_s=limit_s)
        decoded.notes += notes
        return decoded
    source = connect(Watchdog(limit_s))
    source.notes += notes
    if not source.live:
        return source
    return LiveSource(
        source,
        partial(connect, levels=source.info.levels),
        frames=frames,
        backoff=backoff if address.kind != "stdin" else Backoff(attempts=0),
        drop_oldest=drop == "oldest" or (drop == "auto" and address.kind != "stdin"),
        limit_s=limit_s,
    )


def probe(path: str | Path, *, pixel_limit: int = PIXEL_LIMIT) -> VideoInfo:
    """What is known of an input without reading all of it; the same errors as :func:`open_source`."""
    source = open_source(path, pixel_limit=pixel_limit)
    source.close()
    return source.info
