"""Opening a media container safely: only known formats, only local bytes, sizes checked before frames are allocated.

FFmpeg decides by content, not by name, what a file is. A text file can therefore be a playlist that makes FFmpeg open
other files or network addresses; formats and protocols are whitelisted inside FFmpeg and the result is checked again.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidseg.errors import InputError

PIXEL_LIMIT = 8192 * 4352
"""Default limit of pixels per frame: a little more than 8K (7680x4320 and the 8192-wide cinema format)."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng,ogg,flv,asf,yuv4mpegpipe,nut,ivf,mxf,"
    "mjpeg,h264,hevc,m4v,obu"
)
"""FFmpeg demuxers that may open an input. None of them follows references to other files or addresses."""

_PLAYLISTS = (b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD", b"<smil", b"[playlist]", b"RTSPtext")


def open_container(path: str, *, pixel_limit: int = PIXEL_LIMIT) -> tuple[InputContainer, VideoStream]:
    """Open a media file (or standard input, ``"-"``) and choose its main video stream; nothing is decoded yet.

    Raises:
        InputError: no such file, not a media file, a refused kind (playlists), no video in it, or frames larger than
            ``pixel_limit`` pixels.
    """
    name = "standard input" if path == "-" else path
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "pipe" if path == "-" else "file",
        "max_pixels": str(pixel_limit),
        "threads": "1",
    }
    try:
        container = av.open(_url(path), "r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise InputError(_why_not(path, name, error)) from error
    try:
        return container, _main_stream(container, name, pixel_limit)
    except InputError:
        container.close()
        raise


def frame_count(stream: VideoStream) -> int | None:
    """Frames that the container names, less those that its edit list cuts away; None where it names none."""
    if not stream.frames:
        return None
    return stream.frames - sum(entry.is_discard for entry in stream.index_entries)


def input_name(path: str) -> str:
    """Short name of an input, one safe path component: the file's stem, the folder's name, or ``stdin``."""
    if path == "-":
        return "stdin"
    file = Path(path).resolve()
    return (file.name if file.is_dir() else file.stem) or "video"


def frame_rate(stream: VideoStream) -> Fraction:
    """Nominal frames per second: the average rate where the container knows it, else the guessed one, else 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0 < rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def _url(path: str) -> str:
    if path == "-":
        if sys.stdin.isatty():
            raise InputError("standard input is a terminal: pipe a video into it")
        return "pipe:0"
    file = Path(path)
    if not file.exists():
        if "://" in path:
            raise InputError(f"{path}: only local files, folders and '-' (standard input) are read")
        raise InputError(f"{path}: no such file or folder")
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    return f"file:{path}"  # the prefix keeps names such as "concat:x" from being read as a protocol


def _main_stream(container: InputContainer, name: str, pixel_limit: int) -> VideoStream:
    if not set(container.format.name.split(",")) & set(FORMATS.split(",")):
        raise InputError(f"{name}: the format '{container.format.name}' is refused; allowed are {FORMATS}")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise InputError(f"{name}: no video in it (format {container.format.name})")
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    context = stream.codec_context
    if context is None:
        raise InputError(f"{name}: no decoder for its video stream: a rare codec, or the file is damaged")
    if context.width * context.height > pixel_limit:
        raise InputError(
            f"{name}: frames of {context.width}x{context.height} are larger than the limit of {pixel_limit} pixels"
        )
    context.options = {"max_pixels": str(pixel_limit)}  # parameter sets inside the stream may name another size
    return stream


def _why_not(path: str, name: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{name}: no permission to read it"
    head = b""
    if path != "-" and Path(path).is_file():
        with Path(path).open("rb") as file:
            head = file.read(64)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(_PLAYLISTS):
        return f"{name}: a playlist, not a video: refused because playlists make other files and addresses be opened"
    refused = isinstance(error, av.error.ArgumentError)  # what FFmpeg says to a format outside the whitelist
    reason = "no accepted video format" if refused else getattr(error, "strerror", None) or error
    return f"{name}: not a video that can be read ({reason}); it may be damaged, incomplete or no video at all"
