"""Opening a media container safely: only known formats and protocols, sizes checked before frames are allocated.

FFmpeg decides by content, not by name, what a file is. A text file can therefore be a playlist that makes FFmpeg open
other files or network addresses; formats and protocols are whitelisted inside FFmpeg and the result is checked again.
The network is used only for an address that begins with one of the schemes of :mod:`vidseg.address`.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidseg.address import Address
from vidseg.archives import HEAD_BYTES, archive_kind
from vidseg.errors import InputError, UsageError, VidsegError
from vidseg.limits import PIXEL_LIMIT, check_pixels

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng,ogg,flv,asf,yuv4mpegpipe,nut,ivf,mxf,"
    "mjpeg,h264,hevc,m4v,obu"
)
"""FFmpeg demuxers that may open an input. None of them follows references to other files or addresses."""

_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_PLAYLISTS = (b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD", b"<smil", b"[playlist]", b"RTSPtext")

_STREAMS = {  # scheme: (FFmpeg demuxers, FFmpeg protocols) that it may use besides FORMATS; never files
    "http": ("mpjpeg", "http,https,httpproxy,tcp,tls"),
    "https": ("mpjpeg", "http,https,httpproxy,tcp,tls"),
    "rtsp": ("rtsp", "rtp,udp,tcp"),
    "rtsps": ("rtsp", "rtp,udp,tcp,tls"),
    "rtmp": ("live_flv", "rtmp,tcp"),
    "rtmps": ("live_flv", "rtmps,rtmp,tcp,tls"),
}
_HTML = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_PAGE_TIMEOUT_S = 5.0
_CAMERA_FORMAT = "video4linux2,v4l2"


def open_container(
    address: Address,
    *,
    stream: int | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    timeout_s: float | None = None,
) -> tuple[InputContainer, VideoStream]:
    """Open an input and choose its video stream; nothing is decoded yet.

    ``stream`` is the number of a stream as ffprobe shows it; by default the stream with the most pixels among those
    that the container marks as default ones (or among all). ``timeout_s`` limits what FFmpeg can limit by itself: reads
    from the network, long searches.

    Raises:
        InputError: no such file or camera, not a media file, a refused kind (playlists), no connection, no video in it,
            or frames larger than ``pixel_limit`` pixels.
        UsageError: ``stream`` is not a video stream of it.
    """
    formats, protocols = _STREAMS.get(address.scheme, ("", "pipe" if address.kind == "stdin" else "file"))
    formats = f"{formats},{FORMATS}" if formats else FORMATS
    if address.kind == "camera":
        formats = _CAMERA_FORMAT
    options = {
        "format_whitelist": formats,
        "protocol_whitelist": protocols,
        "max_pixels": str(pixel_limit),
        "threads": "1",
    }
    if address.scheme.startswith("rtsp"):
        options["rtsp_flags"] = "prefer_tcp"  # packets of UDP get lost
    if address.scheme in ("https", "rtsps", "rtmps"):
        options["tls_verify"] = "1"
        options |= {"ca_file": ca_file} if (ca_file := _authorities()) else {}
    try:
        container = av.open(
            _url(address),
            "r",
            format="v4l2" if address.kind == "camera" else None,
            options=options,
            metadata_errors="replace",
            timeout=timeout_s,
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        raise InputError(_why_not(address, error)) from (None if address.kind == "stream" else error)  # it has the URL
    try:
        _check_format(container, address.shown, formats)
        chosen = _choose_stream(container, address.shown, stream)
        _limit_pixels(chosen, address.shown, pixel_limit)
        return container, chosen
    except VidsegError:
        container.close()
        raise


def plain_reason(error: Exception) -> str:
    """What FFmpeg complains about, without the URL that it names."""
    if isinstance(error, av.error.ExitError):
        return "no data in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def needs_seeking(address: Address, container: InputContainer) -> bool:
    """Whether an input that gives no frame may be an MP4 with its index at the end, which cannot be read in order."""
    return address.kind in ("stdin", "stream") and container.format.name.startswith("mov")


def no_frame(address: Address, container: InputContainer, pixel_limit: int) -> str:
    """Why an input that could be opened gives no frame at all."""
    if needs_seeking(address, container):
        why = {
            "stdin": "cannot be read from a pipe; give the path of the file",
            "stream": "needs a server that sends ranges; download it first",
        }[address.kind]
        return (
            f"{address.shown}: no frame arrives: an MP4 with its index at its end {why}, or write it with FFmpeg's"
            " -movflags +faststart, or as MPEG-TS (-f mpegts)"
        )
    return (
        f"{address.shown}: no frame can be decoded; the video is damaged or incomplete, or its frames are larger"
        f" than the limit of {pixel_limit} pixels"
    )


def _url(address: Address) -> str:
    if address.kind == "stdin":
        if sys.stdin is None or sys.stdin.isatty():  # closed by who started this, or a terminal
            raise InputError("nothing on standard input: pipe a video into it")
        return "pipe:0"
    if address.kind == "stream":
        return address.url
    if address.kind == "camera":
        _check_camera(address)
        return address.url
    file = Path(address.url)
    if not os.path.exists(file):  # noqa: PTH110  (False for names that no file can have)
        raise InputError(f"{address.shown}: no such file or folder")
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{address.shown}: the file is empty")
    return f"file:{address.url}"  # the prefix keeps names such as "concat:x" from being read as a protocol


def _check_camera(address: Address) -> None:
    if "v4l2" not in ",".join(av.formats_available).split(","):
        raise InputError(
            f"{address.shown}: this PyAV cannot read cameras (it needs Video4Linux, which {platform.system()} or this "
            "build lacks); pipe the camera into `vidseg run -` with another program"
        )
    if not Path(address.url).exists():
        cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
        raise InputError(f"{address.shown}: no camera {address.url}; there are {', '.join(cameras) or 'none'}")


def _authorities() -> str | None:
    """File with the certificates that this system trusts."""
    paths = ssl.get_default_verify_paths()
    return next((path for path in (paths.cafile, *_CA_FILES) if path and Path(path).is_file()), None)


def _check_format(container: InputContainer, name: str, formats: str) -> None:
    if not set(container.format.name.split(",")) & set(formats.split(",")):
        raise InputError(f"{name}: the format '{container.format.name}' is refused; allowed are {formats}")


def _choose_stream(container: InputContainer, name: str, number: int | None) -> VideoStream:
    streams = _pictures(container)
    if not streams:
        raise InputError(f"{name}: no video in it (format {container.format.name})")
    if number is not None:
        chosen = next((stream for stream in streams if stream.index == number), None)
        if chosen is None:
            raise UsageError(f"--stream {number}: {name} has the video streams {', '.join(map(_shown, streams))}")
    else:
        known = [stream for stream in streams if stream.codec_context is not None] or streams
        candidates = [stream for stream in known if stream.disposition & Disposition.default] or known
        chosen = max(candidates, key=_pixels)  # the first of several
    if chosen.codec_context is None:
        raise InputError(f"{name}: no decoder for its video stream: a rare codec, or the file is damaged")
    return chosen


def _limit_pixels(stream: VideoStream, name: str, pixel_limit: int) -> None:
    context = stream.codec_context
    check_pixels(name, (context.width, context.height), pixel_limit, option=True)
    context.options = {"max_pixels": str(pixel_limit)}  # parameter sets inside the stream may name another size


def other_streams(container: InputContainer, chosen: VideoStream) -> str | None:
    """A line that says which of several video streams is read; None when there is only one."""
    streams = _pictures(container)
    if len(streams) < 2:
        return None
    others = ", ".join(_shown(stream) for stream in streams if stream.index != chosen.index)
    return f"{len(streams)} video streams: {_shown(chosen)} is used, not {others} (--stream N chooses)"


def _pictures(container: InputContainer) -> list[VideoStream]:
    """The video streams, without images of a cover."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def _shown(stream: VideoStream) -> str:
    context = stream.codec_context
    return f"#{stream.index}" if context is None else f"#{stream.index} {context.width}x{context.height}"


def _pixels(stream: VideoStream) -> int:
    return 0 if stream.codec_context is None else stream.codec_context.width * stream.codec_context.height


def _why_not(address: Address, error: Exception) -> str:
    name = address.shown
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{name}: no permission to read it"
    head = b""
    if address.kind == "file" and Path(address.url).is_file():
        with Path(address.url).open("rb") as file:
            head = file.read(HEAD_BYTES)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(_PLAYLISTS):
        return f"{name}: a playlist, not a video: refused because playlists make other files and addresses be opened"
    if kind := archive_kind(head):
        return f"{name}: a {kind} archive, not a video: unpack it first"
    if _HTML.match(head):
        return f"{name}: a web page, not a video: save the video itself, not the page that shows it"
    refused = isinstance(error, av.error.ArgumentError)  # what FFmpeg says to a format outside the whitelist
    reason = "no accepted video format" if refused else plain_reason(error)
    answered = refused or isinstance(error, av.error.InvalidDataError)
    if answered and address.scheme in ("http", "https") and _is_web_page(address):
        return f"{name}: a web page, not a video: give the address of the video file itself, or download it first"
    if address.kind in ("stream", "camera"):
        return f"{name}: cannot be opened ({reason}{'; playlists are refused' if refused else ''})"
    return f"{name}: not a video that can be read ({reason}); it may be damaged, incomplete or no video at all"


def _is_web_page(address: Address) -> bool:
    """Whether a server answers with HTML, as for a page that shows a video."""
    parts = urlsplit(address.url)
    try:
        with urlopen(
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), timeout=_PAGE_TIMEOUT_S
        ) as answer:
            kind, head = answer.headers.get_content_type(), answer.read(HEAD_BYTES)
    except (OSError, ValueError, HTTPException):
        return False
    return kind == "text/html" or bool(_HTML.match(head))
