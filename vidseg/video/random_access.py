"""Any frame of a video file or of images, by its index, with the pixels that reading from the start gives.

The packets of a video are listed once, without decoding: their timestamps in order are the frames. To read a frame, the
decoder is set to the last key frame before it. Where the list cannot be trusted (no timestamps, damage), the video is
decoded once from its start to count its frames, and where seeking fails, it is read from the start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
from av.video.frame import VideoFrame

from vidseg.address import parse_address
from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.types import Frame, Source
from vidseg.video.container import open_container, plain_reason
from vidseg.video.damage import Damage
from vidseg.video.folders import video_of
from vidseg.video.orientation import display_orientation
from vidseg.video.pictures import PictureSource
from vidseg.video.rgb import RgbConverter
from vidseg.video.source import open_source

CACHE_BYTES = 1 << 28
"""Frames that are kept: at least the last one."""

_SEEKABLE = {"mov", "matroska", "avi", "mpegts"}
"""Containers, by a name that FFmpeg has for them, in which seeking gives packets their own times."""
_PROBED = 12  # frames at the beginning that are decoded to check the list


class RandomAccess:
    """Reads frames in any order, one at a time; not for several threads at once.

    ``info`` and ``warnings`` are those of the source, ``count`` the number of frames.
    """

    def __init__(self, path: str | Path, *, pixel_limit: int = PIXEL_LIMIT, cache_bytes: int = CACHE_BYTES) -> None:
        """Open the input and list its frames.

        Raises:
            InputError: it cannot be read, or is not a file or folder (a camera, a stream).
        """
        video, notes = video_of(Path(path)) if Path(path).is_dir() else (None, [])
        self._path, self._pixel_limit = str(video or path), pixel_limit
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._decoder: _Decoder | None = None
        self._forward: Iterator[Frame] | None = None
        self._source: Source = open_source(self._path, pixel_limit=pixel_limit)
        self.info = self._source.info
        self.warnings = list(self._source.warnings)
        self.notes = [*notes, *self._source.notes]
        if self._source.live:
            self._source.close()
            raise InputError(f"{path}: only files can be read in any order")
        if isinstance(self._source, PictureSource):
            self.count = len(self.info.frame_names) or int(self.info.frame_count or 0)
            return
        self._source.close()
        times = self._listed()
        self.count = len(times) if times else self._recount()

    def read(self, index: int) -> Frame:
        """One frame.

        Raises:
            InputError: there is no such frame, or it cannot be decoded.
        """
        if not 0 <= index < self.count:
            raise InputError(f"{self.info.name}: no frame {index}; it has {self.count} frames")
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        if isinstance(self._source, PictureSource):
            frame = self._source.at(index)
        else:
            frame = self._seek(index) if self._decoder is not None else self._read_forward(index)
        self._keep(frame)
        return frame

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._source, PictureSource):
            self._source.close()
        if self._decoder is not None:
            self._decoder.close()
        self._forward = None
        self._cache.clear()

    def _listed(self) -> list[int]:
        """Timestamps of all frames, from the packets; none where they cannot be trusted."""
        decoder = _Decoder(self._path, self, self._pixel_limit)
        if not (decoder.seekable and decoder.trusted()):
            decoder.close()
            return []
        self._decoder = decoder
        promised, step = self.info.duration_s, float(1 / self.info.fps)
        seen = float((decoder.times[-1] - decoder.times[0]) * (self.info.time_base or 0)) + step
        if promised is not None and self.info.frame_count is None and seen < promised - max(0.5, 3 * step):
            self.warnings.append(f"truncated: the container names {promised:.2f} s, only {seen:.2f} s were found")
        return decoder.times

    def _recount(self) -> int:
        """Decode all to know how many frames there are, and when."""
        source = open_source(self._path, pixel_limit=self._pixel_limit)
        times = [frame.pts for frame in source]
        self.warnings = list(source.warnings)
        if not times:
            raise InputError(f"{self.info.name}: not one frame could be read")
        decoder = _Decoder(self._path, self, self._pixel_limit)
        if decoder.seekable and all(a < b for a, b in pairwise(times)) and set(times) <= set(decoder.times):
            decoder.use(times)
            self._decoder = decoder
        else:
            decoder.close()
        return len(times)

    def _seek(self, index: int) -> Frame:
        assert self._decoder is not None
        pixels = self.info.width * self.info.height * 3
        window = max(1, self._cache_bytes // pixels) - 1
        for frame in self._decoder.frames_to(index, window):
            self._keep(frame)
            if frame.index == index:
                return frame
        self._decoder.close()
        self._decoder = None  # what was decoded is not what the packets promised
        before, self.count = self.count, self._recount()
        if self.count != before:
            self.warnings.append(f"damaged: {before} frames were listed, {self.count} can be decoded")
        if index >= self.count:
            raise InputError(f"{self.info.name}: frame {index} cannot be decoded; it has {self.count} frames")
        return self._read_forward(index)

    def _read_forward(self, index: int) -> Frame:
        for attempt in range(2):
            if self._forward is None:
                self._forward = iter(open_source(self._path, pixel_limit=self._pixel_limit))
            for frame in self._forward:
                if frame.index > index:
                    break
                self._keep(frame)
                if frame.index == index:
                    return frame
            self._forward = None  # it was behind: once more from the start
            if attempt:
                break
        raise InputError(f"{self.info.name}: frame {index} cannot be decoded")

    def _keep(self, frame: Frame) -> None:
        self._cache[frame.index] = frame
        self._cache.move_to_end(frame.index)
        limit = max(1, self._cache_bytes // frame.rgb.nbytes)
        while len(self._cache) > limit:
            self._cache.popitem(last=False)


class _Decoder:
    """A video whose packets are listed."""

    def __init__(self, path: str, access: RandomAccess, pixel_limit: int) -> None:
        self._address, self._info, self._pixel_limit = parse_address(path), access.info, pixel_limit
        self._rgb: RgbConverter | None = None
        self._damage = Damage(access.warnings)
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
        self._restart()

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
        first = [frame.pts for frame in islice(self._decoded(), _PROBED)]
        if first != self.times[: len(first)]:
            return False
        last = self._keys[-1]
        self._seek(last)
        return [t for t in (frame.pts for frame in self._decoded()) if t is not None and t >= self.times[last]] == (
            self.times[last:]
        )

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
