"""Forward reader: packet by packet, never seeking, damage skipped and reported; one pass over one state, one module."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg.address import Address
from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.types import Frame, Source
from vidseg.video.container import needs_seeking, no_frame, open_container, other_streams, plain_reason
from vidseg.video.damage import Damage
from vidseg.video.deinterlace import FILTER, deinterlaced
from vidseg.video.display_matrix import display_orientation
from vidseg.video.info import PLAUSIBLE_FPS, RATE_PACKETS, frame_rate, nominal_rate, video_info
from vidseg.video.levels import Levels
from vidseg.video.reading import frame_bounds
from vidseg.video.rgb import SAMPLES, RgbConverter, is_deep, levels_of, sample
from vidseg.video.watchdog import StoppedError, Watchdog

MAX_FAILURES = 500
"""Packets in a row that may fail to decode, and read errors in one file, before reading stops."""

_FFMPEG_SHARE = 0.9  # its own time limit comes first: what it has read is not lost then, and no thread is left behind
_AHEAD_BYTES = 1 << 25  # of packets that are read before the first frame is decoded


class VideoSource(Source):
    """Frames of one opened input, in the order they are shown.

    ``Frame.index`` counts the decoded frames from the start of the input, also when only a part is delivered.
    ``Frame.pts`` is the stream's own timestamp and ``Frame.time_s`` the same in seconds, also when it does not start at
    zero. Frames are RGB with the stream's own colour matrix and range, turned as the container asks. A file ends where
    its size changes; the frames of a live source go on with the new size. The values of deep grey and RGB video are
    brought to 8 bits by one range for all frames, :attr:`VideoInfo.levels`.
    """

    def __init__(
        self,
        address: Address,
        *,
        frames: slice | None = None,
        stream: int | None = None,
        deinterlace: bool = False,
        pixel_limit: int = PIXEL_LIMIT,
        levels: Levels | None = None,
        threads: int = 1,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Open the input and decode its first frame (size and rotation are known for sure only then).

        Everything that touches the input runs in the thread of ``watchdog`` (default: with the default limit).
        ``levels`` is the range of a deep video where it is known already.

        Raises:
            InputError: see :func:`vidseg.video.container.open_container`; no frame can be decoded; or it takes longer
                than the limit.
            UsageError: ``stream`` is not a video stream of the input.
        """
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.live = False
        self._address, self._name = address, address.shown
        self._start, self._stop = frame_bounds(frames)
        self._stream_number, self._deinterlace, self._pixel_limit = stream, deinterlace, pixel_limit
        self._damage, self._remarks = Damage(self.warnings), Damage(self.notes)
        self.last_data = time.monotonic()
        """When the last packet came, on the monotonic clock."""
        self._packets = 0
        self._lost: InputError | None = None
        self._container: InputContainer | None = None
        self._frames: Generator[Frame | None] | None = None
        self._watchdog = watchdog or Watchdog()
        try:
            self._watchdog.call(lambda: self._open(levels, threads), f"{self._name}: opening it")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Deliver the chosen frames; at the end :attr:`warnings` says what was wrong with the input.

        Raises:
            InputError: it was read or closed; a frame takes longer than the limit; the connection of a stream is lost.
        """
        self._watchdog.check_unread(self._name, begun=self._frames is not None)
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

    def _open(self, levels: Levels | None, threads: int) -> None:
        container, stream = self._container, self._stream = open_container(
            self._address,
            stream=self._stream_number,
            pixel_limit=self._pixel_limit,
            timeout_s=_FFMPEG_SHARE * self._watchdog.limit_s,
        )
        self._bytes = container.size
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        self.live = self._address.kind in ("camera", "stdin") or (
            self._address.kind == "stream" and not (container.size > 0 or container.duration)
        )
        if self.live:
            self._start, self._stop = 0, float("inf")  # frames are counted across connections
        self._demuxed = self._demux(container)
        ahead = self._packets_ahead()
        decoded = self._decode(chain(ahead, self._demuxed))
        try:
            first = next(decoded, None)
        except InputError:
            if not needs_seeking(self._address, container):
                raise
            first = None
        if first is None:
            raise InputError(no_frame(self._address, container, self._pixel_limit))
        interlaced = first.interlaced_frame
        self._decoded: Iterator[VideoFrame] = chain([first], decoded)
        if is_deep(first) and levels is None:
            levels = self._find_levels()
        if self._deinterlace:
            self._decoded = deinterlaced(self._decoded, self._time_base)
        elif interlaced:
            self.notes.append("interlaced: lines of two moments alternate in each frame; --deinterlace joins them")
        if (others := other_streams(container, stream)) is not None:
            self.notes.append(others)
        self._rgb = RgbConverter(self._name, display_orientation(first), levels, self._damage, self._remarks)
        times = [packet.pts for packet in ahead if packet.pts is not None]
        self.info = video_info(
            self._address.name,
            container,
            stream,
            first,
            fps=frame_rate(stream, times, interlaced=interlaced),
            levels=levels,
            deinterlaced=FILTER if self._deinterlace else "",
        )

    def _packets_ahead(self) -> list[Packet[VideoStream]]:
        """The first packets, whose timestamps tell the rate. Of a live source only where its rate must be wrong."""
        packets: list[Packet[VideoStream]] = []
        if self.live and (nominal_rate(self._stream) or 0) <= PLAUSIBLE_FPS:
            return packets
        size = 0
        for packet in islice(self._demuxed, RATE_PACKETS):
            packets.append(packet)
            size += packet.size
            if size > _AHEAD_BYTES:
                break
        return packets

    def _find_levels(self) -> Levels:
        if self._address.kind != "file":
            ahead = list(islice(self._decoded, SAMPLES))
            self._decoded = chain(ahead, self._decoded)
            return levels_of(ahead)
        container, stream = open_container(self._address, stream=self._stream_number, pixel_limit=self._pixel_limit)
        with container:
            return levels_of(sample(container, stream))

    def _release(self) -> None:
        if self._frames is not None:
            self._frames.close()
        if self._container is not None:
            self._container.close()

    def _deliver(self) -> Generator[Frame | None]:
        """The chosen frames, and None for each one before them, so that skipping is not taken for a hang."""
        size: tuple[int, int] | None = None
        count, pts = 0, None
        for index, decoded in enumerate(self._decoded):
            self._damage.position = self._remarks.position = index
            count = index + 1
            pts = self._timestamp(decoded, pts)
            size = size or (decoded.width, decoded.height)
            if (decoded.width, decoded.height) != size and not self.live:
                self.warnings.append(
                    f"frame {index}: the size changes from {size[0]}x{size[1]} to {decoded.width}x"
                    f"{decoded.height}; reading stops there"
                )
                break
            if decoded.is_corrupt:
                self._damage.add("damaged frames were repaired by the decoder")
            if index >= self._start:
                yield Frame(index, pts, float(pts * self._time_base), self._rgb.convert(decoded))
            else:
                yield None
            if count >= self._stop:
                break
        else:
            self._check_end(count, pts)
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

    def _decode(self, packets: Iterator[Packet[VideoStream]]) -> Generator[VideoFrame]:
        """All frames of the stream, then the error that ended it, if any."""
        yield from self._decode_packets(packets)
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
        """Compare what was read with what the container promised, and with what has been written to it since."""
        if self._container is not None and 0 < self._bytes < self._container.size:
            self.warnings.append(
                f"the file grew from {self._bytes:,} to {self._container.size:,} bytes while it was read: frames "
                "at its end may be missing; read it when it is complete"
            )
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
