"""One door for every kind of input."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

from vidseg.address import Address, parse_address
from vidseg.errors import InputError, UsageError
from vidseg.files import is_pattern, matches
from vidseg.limits import PIXEL_LIMIT
from vidseg.storage_cache import here
from vidseg.types import Source, VideoInfo
from vidseg.video.folders import video_of
from vidseg.video.image_source import ImageSource
from vidseg.video.images import pages_of
from vidseg.video.levels import Levels
from vidseg.video.listing import frames_among, is_picture, list_images
from vidseg.video.reading import DEFAULT_BACKOFF, Backoff
from vidseg.video.stack_source import StackSource
from vidseg.video.watchdog import READ_TIMEOUT_S, Watchdog

_ANIMATIONS = (".gif", ".apng")


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
    reader: Literal["pyav", "decord", "torchcodec", "nvdec"] = "pyav",
    drop: Literal["auto", "oldest", "none"] = "auto",
    backoff: Backoff = DEFAULT_BACKOFF,
    offline: bool = False,
) -> Source:
    """Open a video, an image, a folder or pattern of images, standard input (``"-"``), a camera or a stream.

    A folder may also hold one video.

    Args:
        path: the input; ``frames/*.jpg``, ``camera:0``, and URLs of :data:`vidseg.address.SCHEMES` and of
            :data:`vidseg.storage.OBJECTS`.
        frames: only frames ``A <= index < B`` of the input; they keep their indices.
        stream: number of the video stream in its file, as ffprobe shows it; default: the main one.
        deinterlace: make one image of the two fields of each frame.
        pixel_limit: frames with more pixels are refused before memory is taken for them.
        image_fps: rate given to images, which have none.
        threads: decoder threads. One keeps the pixels of damaged videos the same in every run.
        limit_s: seconds that opening the input, or its next frame, may take.
        reader: what decodes a video file: PyAV, or another package in a process of its own, checked against PyAV.
        drop: ``oldest`` leaves out frames of a live source that wait longest when they come too fast, ``none`` lets the
            source wait; ``auto`` is ``oldest`` for cameras and streams and ``none`` for standard input.
        backoff: how a lost camera or stream is connected to again.
        offline: refuse streams and objects.

    Raises:
        InputError: one line that says why the input cannot be read.
        UsageError: ``reader``, ``drop``, ``stream`` or ``deinterlace`` does not fit the input.
    """
    address, notes = parse_address(str(path)), list[str]()
    files: list[Path] | None = None
    if offline and address.kind in ("stream", "object"):
        raise InputError(f"{address.shown}: a remote input, which --offline forbids")
    if address.kind == "object":
        address = replace(address, kind="file", url=str(here(address.url)))
    if address.kind == "file":
        address, files, notes = _named(address)
    file = Path(address.url) if address.kind == "file" else None
    stills = file is not None and (files is not None or _is_still(file))
    if reader != "pyav" and (file is None or stills):
        raise UsageError(f"--reader {reader} reads video files only; leave it out for {address.shown}")
    if drop == "oldest" and file is not None:
        raise UsageError(f"--drop oldest is for cameras, streams and standard input; {address.shown} is a file")
    if stream is not None or deinterlace:
        option = "--deinterlace" if stream is None else f"--stream {stream}"
        if reader != "pyav":
            raise UsageError(f"{option} and --reader {reader} cannot be combined")
        if stills:
            raise UsageError(f"{option} is for videos; {address.shown} holds images")
    if file is not None and stills:
        images = _open_stills(file, files, frames, pixel_limit, image_fps, Watchdog(limit_s))
        if images is not None:
            images.notes += notes
            return images

    if importlib.util.find_spec("av") is None:
        raise InputError(f"{address.shown}: reading videos needs PyAV (pip install av); folders of images do not")
    from vidseg.video.backend import BackendSource  # all of these decode with PyAV
    from vidseg.video.live import LiveSource
    from vidseg.video.reader import VideoSource

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


def _named(address: Address) -> tuple[Address, list[Path] | None, list[str]]:
    """The file that a folder or pattern stands for, or the images, and notes on what is left out."""
    path = Path(address.url)
    if is_pattern(address.url):
        found = [Path(name) for name in matches(address.url)]
        if len(found) == 1:
            return parse_address(str(found[0])), None, []
        return address, frames_among(found, path), []
    if not os.path.isdir(path):  # noqa: PTH112  (False for names that no file can have)
        return address, None, []
    video, notes = video_of(path)
    if video is not None:
        return parse_address(str(video)), None, notes
    return address, list_images(path), notes


def _is_still(file: Path) -> bool:
    """An image; GIF and APNG are videos."""
    return os.path.isfile(file) and file.suffix.lower() not in _ANIMATIONS and is_picture(file)  # noqa: PTH113


def _open_stills(
    file: Path, files: list[Path] | None, frames: slice | None, pixel_limit: int, fps: Fraction, watchdog: Watchdog
) -> ImageSource | StackSource | None:
    """Images as a video; None for an animation that FFmpeg reads."""
    name = parse_address(str(file.parent if is_pattern(str(file)) else file)).name
    if files is None:
        files = [file]
        pages = watchdog.call(partial(pages_of, file, pixel_limit), str(file))
        if len(pages) > 1 and file.suffix.lower() == ".png":
            watchdog.close(lambda: None)
            return None
        if len(pages) > 1:
            return StackSource(
                file, pages, name=name, frames=frames, pixel_limit=pixel_limit, fps=fps, watchdog=watchdog
            )
    return ImageSource(file, files, name=name, frames=frames, pixel_limit=pixel_limit, fps=fps, watchdog=watchdog)
