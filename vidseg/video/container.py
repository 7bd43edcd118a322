"""Opening a media container safely: only known formats and protocols, sizes checked before frames are allocated.

FFmpeg decides by content, not by name, what a file is. A text file can therefore be a playlist that makes FFmpeg open
other files or network addresses; formats and protocols are whitelisted inside FFmpeg and the result is checked again.
The network is used only for an address that begins with one of the schemes of :mod:`vidseg.address`.
"""

from __future__ import annotations

import os
import platform
import ssl
import sys
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidseg.address import Address
from vidseg.archives import HEAD_BYTES, archive_kind
from vidseg.errors import InputError

PIXEL_LIMIT = 8192 * 4352
"""Default limit of pixels per frame: a little more than 8K (7680x4320 and the 8192-wide cinema format)."""

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
_CAMERA_FORMAT = "video4linux2,v4l2"


def open_container(
    address: Address, *, pixel_limit: int = PIXEL_LIMIT, timeout_s: float | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open an input and choose its main video stream; nothing is decoded yet.

    ``timeout_s`` limits what FFmpeg can limit by itself: reads from the network, long searches.

    Raises:
        InputError: no such file or camera, not a media file, a refused kind (playlists), no connection, no video in it,
            or frames larger than ``pixel_limit`` pixels.
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
        return container, _main_stream(container, address.shown, pixel_limit, formats)
    except InputError:
        container.close()
        raise


def plain_reason(error: Exception) -> str:
    """What FFmpeg complains about, without the URL that it names."""
    if isinstance(error, av.error.ExitError):
        return "no data in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def frame_count(stream: VideoStream) -> int | None:
    """Frames that the container names, less those that its edit list cuts away; None where it names none."""
    if not stream.frames:
        return None
    return stream.frames - sum(entry.is_discard for entry in stream.index_entries)


def frame_rate(stream: VideoStream) -> Fraction:
    """Nominal frames per second: the average rate where the container knows it, else the guessed one, else 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0 < rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of the video stream; the container's own length counts only when the video is alone in it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska: 00:00:05.280000000
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        alone = len(container.streams) == 1 and container.duration
        return container.duration / av.time_base if alone and container.duration else None


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


def _main_stream(container: InputContainer, name: str, pixel_limit: int, formats: str) -> VideoStream:
    if not set(container.format.name.split(",")) & set(formats.split(",")):
        raise InputError(f"{name}: the format '{container.format.name}' is refused; allowed are {formats}")
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
    refused = isinstance(error, av.error.ArgumentError)  # what FFmpeg says to a format outside the whitelist
    reason = "no accepted video format" if refused else plain_reason(error)
    if address.kind in ("stream", "camera"):
        return f"{name}: cannot be opened ({reason}{'; playlists are refused' if refused else ''})"
    return f"{name}: not a video that can be read ({reason}); it may be damaged, incomplete or no video at all"
