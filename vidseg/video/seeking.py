"""A video file whose packets are listed once, without decoding, so that it can be decoded from any key frame."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice

import av
from av.video.frame import VideoFrame

from vidseg.address import parse_address
from vidseg.types import Frame, VideoInfo
from vidseg.video.container import open_container, plain_reason
from vidseg.video.damage import Damage
from vidseg.video.display_matrix import display_orientation
from vidseg.video.rgb import RgbConverter

_SEEKABLE = {"mov", "matroska", "avi", "mpegts"}
"""Containers, by a name that FFmpeg has for them, in which seeking gives packets their own times."""
_PROBED = 12  # frames at the beginning that are decoded to check the list


class SeekingDecoder:
    """A video whose packets are listed. Not for several threads at once; :meth:`another` is."""

    def __init__(self, path: str, info: VideoInfo, warnings: list[str], pixel_limit: int) -> None:
        """List the packets; ``warnings`` gets a line for each kind of damage that decoding finds.

        Raises:
            InputError: the file cannot be opened.
        """
        self._address, self._info, self._pixel_limit = parse_address(path), info, pixel_limit
        self._rgb: RgbConverter | None = None
        self._running: Iterator[VideoFrame] = iter(())
        self._damage = Damage(warnings)
        self._open()
        self.times: list[int] = []
        self.complete = True
        keys: list[int] = []
        self._positions: dict[int | None, int | None] = {}
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size or packet.is_discard:
                    continue
                self.complete &= packet.pts is not None and not packet.is_corrupt
                self._positions[packet.pts] = packet.pos
                if packet.pts is not None:
                    self.times.append(packet.pts)
                    keys += [packet.pts] if packet.is_keyframe else []
        except (av.FFmpegError, OSError):
            self.complete = False
        self._key_times = sorted(keys)
        self.use(sorted(self.times))
        self._leave()

    def another(self, warnings: list[str]) -> SeekingDecoder:
        """One with the same list, which opens the file for itself.

        Raises:
            InputError: the file cannot be opened any more.
        """
        other = copy.copy(self)
        other._rgb, other._damage = None, Damage(warnings)
        other._open()
        other._restart()
        return other

    def use(self, times: list[int]) -> None:
        """Take these as the timestamps of the frames."""
        self.times = times
        self._place = {time: place for place, time in enumerate(times)}
        self._keys = sorted(self._place[time] for time in self._key_times if time in self._place)

    def trusted(self) -> bool:
        """Whether the packets are the frames: all have times, the promised number, and the ends decode as listed."""
        promised = self._info.frame_count
        if not self.complete or not self.times or len(self._place) != len(self.times) or self._keys[:1] != [0]:
            return False
        if promised is not None and promised != len(self.times):
            return False
        self._seek(0)
        first = [frame.pts for frame in islice(self._running, _PROBED)]
        last = self._keys[-1]
        self._seek(last)
        end = [t for t in (frame.pts for frame in self._running) if t is not None and t >= self.times[last]]
        self._leave()
        return first == self.times[:_PROBED] and end == self.times[last:]

    def key_before(self, index: int) -> int:
        """The last frame up to ``index`` from which decoding can begin; 0 where no key frame is known."""
        key = bisect_right(self._keys, index) - 1
        return self._keys[key] if key >= 0 else 0

    def stretch(self, first: int, last: int) -> Iterator[Frame]:
        """Frames from ``first`` to ``last``, decoded once; fewer where decoding does not give them at once."""
        key = self.key_before(first)
        if key:
            self._seek(key)
        else:
            self._reopen()
        yield from self._until(last, key, last - first)

    def frames_to(self, index: int, window: int) -> Iterator[Frame]:
        """Frames up to ``index``, from ``window`` before it at most; fewer where decoding does not give them."""
        key = bisect_right(self._keys, index) - 1
        if not self._next <= index or (key >= 0 and self._keys[key] > self._next):
            while key >= 0:
                self._seek(self._keys[key])
                found = list(self._until(index, self._keys[key], window))
                if found and found[-1].index == index:
                    yield from found
                    return
                key -= 1
            self._reopen()
            yield from self._until(index, 0, window)
            return
        yield from self._until(index, self._next, window)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _until(self, index: int, first: int, window: int) -> Iterator[Frame]:
        for decoded in self._running:
            place = self._place.get(decoded.pts) if decoded.pts is not None else None
            if place is None or place < first:
                continue
            self._next = place + 1
            if place > index:
                return
            if place >= index - window:
                yield self._frame(place, decoded)
            if place == index:
                return

    def _frame(self, place: int, decoded: VideoFrame) -> Frame:
        if self._rgb is None:
            self._rgb = RgbConverter(
                self._info.name, display_orientation(decoded), self._info.levels, self._damage, self._damage
            )
        self._damage.position = place
        pts = int(decoded.pts or 0)
        return Frame(place, pts, float(pts * (self._stream.time_base or 0)), self._rgb.convert(decoded))

    def _open(self) -> None:
        self._container, self._stream = open_container(
            self._address, stream=self._info.stream, pixel_limit=self._pixel_limit
        )
        self.seekable = bool(_SEEKABLE & set(self._container.format.name.split(",")))
        self._stream.codec_context.thread_count = 1
        self._stream.thread_type = "NONE"

    def _reopen(self) -> None:
        self._container.close()
        self._open()
        self._restart()

    def _restart(self) -> None:
        self._running = self._decoded()
        self._next = 0

    def _leave(self) -> None:
        """Packets were read: whoever wants a frame has to seek."""
        self._running = iter(())
        self._next = len(self.times)

    def _seek(self, place: int) -> None:
        try:
            self._container.seek(self.times[place], stream=self._stream, backward=True, any_frame=False)
        except (av.FFmpegError, ValueError, OSError):
            self._reopen()
        self._running = self._decoded()
        self._next = place

    def _decoded(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None or (packet.size and self._positions.get(packet.pts) != packet.pos):
                    return  # after seeking in some containers packets get times that are not theirs
                yield from packet.decode()
            except av.error.EOFError:
                return
            except (av.FFmpegError, ValueError, OSError) as error:
                self._damage.add(f"damaged packets were skipped ({plain_reason(error)})")
                if isinstance(error, OSError) and not isinstance(error, av.error.InvalidDataError):
                    return
