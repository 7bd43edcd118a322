"""Forward reader: packet by packet, never seeking, damage skipped and reported."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg.address import Address
from vidseg.errors import InputError, UsageError
from vidseg.types import Array, Frame, VideoInfo
from vidseg.video.container import PIXEL_LIMIT, duration, frame_count, frame_rate, open_container, plain_reason
from vidseg.video.damage import Damage
from vidseg.video.orientation import display_orientation
from vidseg.video.watchdog import StoppedError, Watchdog

MAX_FAILURES = 500
"""Packets in a row that may fail to decode, and read errors in one file, before reading stops."""

_FFMPEG_SHARE = 0.9  # its own time limit comes first: what it has read is not lost then, and no thread is left behind
_UNSPECIFIED = 2  # of colour tags, ISO/IEC 23091-2


class VideoSource:
    """Frames of one opened input, in the order they are shown.

    ``Frame.index`` counts the decoded frames from the start of the input, also when only a part is delivered.
    ``Frame.pts`` is the stream's own timestamp and ``Frame.time_s`` the same in seconds, also when it does not start at
    zero. Frames are RGB with the stream's own colour matrix and range, turned as the container asks. A file ends where
    its size changes; the frames of a live source go on with the new size.
    """

    def __init__(
        self,
        address: Address,
        *,
        frames: slice | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        threads: int = 1,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Open the input and decode its first frame (size and rotation are known for sure only then).

        Everything that touches the input runs in the thread of ``watchdog`` (default: with the default limit).

        Raises:
            InputError: see :func:`vidseg.video.container.open_container`; no frame can be decoded; or it takes longer
                than the limit.
        """
        self.warnings: list[str] = []
        self.live = False
        self._address, self._name = address, address.shown
        self._start, self._stop = frame_bounds(frames)
        self._damage = Damage(self.warnings)
        self.last_data = time.monotonic()
        """When the last packet came, on the monotonic clock."""
        self._packets = 0
        self._lost: InputError | None = None
        self._read = False
        self._container: InputContainer | None = None
        self._frames: Generator[Frame | None] | None = None
        self._watchdog = watchdog or Watchdog()
        try:
            self._watchdog.call(lambda: self._open(pixel_limit, threads), f"{self._name}: opening it")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Deliver the chosen frames; at the end :attr:`warnings` says what was wrong with the input.

        Raises:
            InputError: a frame takes longer than the limit; the connection of a stream is lost.
        """
        if self._read:
            raise InputError(f"{self._name}: a source is read once; open it again")
        self._read = True
        frames = self._frames = self._deliver()
        try:
            while True:
                what = f"{self._name}: frame {self._damage.position + 1}"
                frame = self._watchdog.call(lambda: next(frames, False), what)
                if isinstance(frame, Frame):
                    yield frame
                elif frame is False:
                    return
        except StoppedError:
            return
        finally:
            self.close()

    def stop(self) -> None:
        """End the iteration, also while it waits for a frame."""
        self._watchdog.stop()

    def close(self) -> None:
        """Close the file and the decoder."""
        self._watchdog.close(self._release)

    def _open(self, pixel_limit: int, threads: int) -> None:
        self._container, self._stream = open_container(
            self._address, pixel_limit=pixel_limit, timeout_s=_FFMPEG_SHARE * self._watchdog.limit_s
        )
        self._stream.codec_context.thread_count = threads
        self._stream.thread_type = "AUTO" if threads > 1 else "NONE"
        self._decoded = self._decode(self._container)
        first = next(self._decoded, None)
        if first is None:
            raise InputError(
                f"{self._name}: no frame can be decoded; the video is damaged or incomplete, or its frames are larger"
                f" than the limit of {pixel_limit} pixels"
            )
        self._first: VideoFrame | None = first
        self._orientation = display_orientation(first)
        self.info = video_info(self._address.name, self._container, self._stream, first)
        self.live = self._address.kind in ("camera", "stdin") or (
            self._address.kind == "stream" and not (self._container.size > 0 or self._container.duration)
        )
        if self.live:
            self._start, self._stop = 0, float("inf")  # frames are counted across connections

    def _release(self) -> None:
        if self._frames is not None:
            self._frames.close()
        if self._container is not None:
            self._container.close()

    def _deliver(self) -> Generator[Frame | None]:
        """The chosen frames, and None for each one before them, so that skipping is not taken for a hang."""
        first, self._first = self._first, None
        assert first is not None
        size, count, pts = (first.width, first.height), 0, None
        try:
            for index, decoded in enumerate(_chain(first, self._decoded)):
                self._damage.position = index
                count = index + 1
                pts = self._timestamp(decoded, pts)
                if (decoded.width, decoded.height) != size and not self.live:
                    self.warnings.append(
                        f"frame {index}: the size changes from {size[0]}x{size[1]} to {decoded.width}x"
                        f"{decoded.height}; reading stops there"
                    )
                    break
                if decoded.is_corrupt:
                    self._damage.add("damaged frames were repaired by the decoder")
                if index >= self._start:
                    rgb = self._orientation.apply(self._to_rgb(decoded))
                    yield Frame(index, pts, float(pts * self._time_base), rgb)
                else:
                    yield None
                if count >= self._stop:
                    break
            else:
                self._check_end(count, pts)
        finally:
            self._damage.report()
        if count <= self._start:
            raise InputError(f"{self._name}: frames start at {self._start}, but it has only {count} frames")

    @property
    def _time_base(self) -> Fraction:
        return self._stream.time_base or Fraction(1, 1000)

    def _timestamp(self, decoded: VideoFrame, previous: int | None) -> int:
        """The frame's pts; one frame after the previous where it is missing, one unit after where it does not grow.

        A live stream may begin again: there it is left to who joins the connections.
        """
        if decoded.pts is None:
            return 0 if previous is None else previous + max(1, round(1 / (self.info.fps * self._time_base)))
        if previous is None or decoded.pts > previous or self.live:
            return decoded.pts
        self._damage.add("timestamps did not grow and were replaced")
        return previous + 1

    def _to_rgb(self, decoded: VideoFrame) -> Array:
        """Pixels in RGB. Colour tags that FFmpeg cannot convert from (damaged, or rare ones) are set aside."""
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

    def _decode(self, container: InputContainer) -> Generator[VideoFrame]:
        """All frames of the stream, then the error that ended it, if any."""
        yield from self._decode_packets(self._demux(container))
        if self._lost is not None:
            raise self._lost

    def _decode_packets(self, packets: Iterator[Packet[VideoStream]]) -> Generator[VideoFrame]:
        """The frames in ``packets``; those that fail are counted and skipped."""
        failures = 0
        for packet in packets:
            if packet.size and not packet.is_discard:
                self._packets += 1
            if packet.is_corrupt:
                self._damage.add("damaged packets were decoded as far as possible")
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except (av.FFmpegError, ValueError):
                failures += 1
                self._damage.add("damaged packets were skipped")
                if failures >= MAX_FAILURES:
                    self.warnings.append(f"reading stopped: {failures} packets in a row could not be decoded")
                    return
                continue
            for frame in frames:
                failures = 0
                yield frame

    def _demux(self, container: InputContainer) -> Iterator[Packet[VideoStream]]:
        """Packets of the stream, then an empty one that makes the decoder give what it holds back."""
        failures = 0
        while True:
            try:
                for packet in container.demux(self._stream):
                    self.last_data = time.monotonic()
                    yield packet
                return
            except (av.FFmpegError, OSError) as error:
                if self._address.kind != "file" and not isinstance(error, av.error.InvalidDataError):
                    if isinstance(error, av.error.ExitError):  # packets that it held back came at the end of the wait
                        self.last_data = time.monotonic() - _FFMPEG_SHARE * self._watchdog.limit_s
                    self._lost = InputError(f"{self._name}: connection lost ({plain_reason(error)})")
                    last = cast("Packet[VideoStream]", Packet())
                    last.stream = self._stream
                    yield last
                    return
                failures += 1
                self._damage.add("damaged places in the file were skipped")
                if failures >= MAX_FAILURES:
                    self.warnings.append(f"reading stopped: {plain_reason(error)}")
                    return

    def _check_end(self, count: int, pts: int | None) -> None:
        """Compare what was read with what the container promised."""
        promised_frames = self.info.frame_count
        if promised_frames is not None and self._packets < promised_frames:
            self.warnings.append(f"truncated: the container names {promised_frames} frames, {self._packets} were found")
        promised, step = self.info.duration_s, float(1 / self.info.fps)
        if promised_frames is not None or promised is None or pts is None or count < 2:
            return
        start = float((self._stream.start_time or 0) * self._time_base)
        seen = float(pts * self._time_base) - start + step
        if seen < promised - max(0.5, 3 * step):
            self.warnings.append(f"truncated: the container names {promised:.2f} s, only {seen:.2f} s were found")


def frame_bounds(frames: slice | None) -> tuple[int, float]:
    """First index and end (exclusive, may be infinite) of a ``--frames A:B`` slice.

    Raises:
        UsageError: negative or empty range, or a step.
    """
    start, stop = (frames.start or 0, frames.stop) if frames is not None else (0, None)
    if frames is not None and (frames.step not in (None, 1) or start < 0 or (stop is not None and stop <= start)):
        raise UsageError(f"frames {frames.start}:{frames.stop}: A:B with 0 <= A < B and no step wanted")
    return start, float("inf") if stop is None else stop


def video_info(name: str, container: InputContainer, stream: VideoStream, first: VideoFrame) -> VideoInfo:
    """What is known once the first frame is decoded."""
    orientation = display_orientation(first)
    width, height = first.width, first.height
    if orientation.transpose:
        width, height = height, width
    return VideoInfo(
        width,
        height,
        frame_rate(stream),
        frame_count=frame_count(stream),
        duration_s=duration(container, stream),
        rotation=orientation.degrees,
        codec=stream.codec_context.name,
        name=name,
        time_base=stream.time_base,
    )


def _chain(first: VideoFrame, rest: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from rest
