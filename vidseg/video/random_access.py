"""Any frame of a video file or of images, by its index, with the pixels that reading from the start gives.

The packets of a video are listed once, without decoding: their timestamps in order are the frames. To read a frame, the
decoder is set to the last key frame before it. To read frames backward, those between two key frames are decoded once
and wait in a file on the disk. Where the list cannot be trusted (no timestamps, damage), the video is
decoded once from its start to count its frames, and where seeking fails, it is read from the start.
"""

from __future__ import annotations

import copy
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.scratch import ScratchStack
from vidseg.types import Frame, Source
from vidseg.video.folders import video_of
from vidseg.video.pictures import PictureSource
from vidseg.video.source import open_source
from vidseg.video.watchdog import TimeLimitError

if TYPE_CHECKING:
    from vidseg.video.seeking import SeekingDecoder

CACHE_BYTES = 1 << 28
"""Frames that are kept: at least the last one."""
SCRATCH_BYTES = 1 << 34
"""Frames that wait on the disk while others are read backward: at least one."""
_HEAD = struct.Struct("<qqd")  # index, pts, time of a frame on the disk


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
        self._decoder: SeekingDecoder | None = None
        self._forward: Iterator[Frame] | None = None
        self._source: Source = open_source(self._path, pixel_limit=pixel_limit)
        self.info = self._source.info
        self.warnings = list(self._source.warnings)
        self.notes = [*notes, *self._source.notes]
        if self._source.live:
            self._source.close()
            raise InputError(f"{path}: only files can be read in any order")
        self.times: list[int] = []
        """Timestamps (pts) of the frames of a video file, in order."""
        if isinstance(self._source, PictureSource):
            self.count = len(self.info.frame_names) or int(self.info.frame_count or 0)
            return
        self._source.close()
        self.times = self._listed()
        if not self.times:
            self._recount()
        self.count = len(self.times)

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

    def check(self, index: int, pts: int) -> None:
        """Decode all to count the frames, if the list gives another timestamp to a frame that was read from the start.

        Raises:
            InputError: not one frame can be read any more.
        """
        if self.times and self.times[index : index + 1] != [pts]:
            self._listed_wrongly()

    def readable(self, indices: Iterable[int]) -> Iterator[Frame]:
        """Frames in any order, but for those that cannot be read.

        Raises:
            InputError: one takes too long, or the list was found wrong, so that all have other numbers.
        """
        listed = self.times
        for index in indices:
            try:
                frame = self.read(index)
            except InputError as error:
                if isinstance(error, TimeLimitError) or self.times is not listed:
                    raise
                continue
            yield frame

    def backward(
        self, last: int, first: int = 0, *, scratch: Path | None = None, scratch_bytes: int = SCRATCH_BYTES
    ) -> Iterator[Frame]:
        """The frames from ``last`` to ``first`` that can be read, one at a time in memory, each decoded once.

        Those between two key frames wait in a file without a name in the folder ``scratch`` (None: TMPDIR); where these
        have more than ``scratch_bytes``, the video is decoded from the key frame once for each so many of them.

        Raises:
            InputError: as :meth:`readable`. OutputError: the disk is full or the like.
        """
        most = max(1, scratch_bytes // (self.info.width * self.info.height * 3))
        with ScratchStack(scratch) as waiting:
            while last >= first:
                start = max(first, self._group_of(last), last - most + 1)
                for frame in self._stretch(start, last):
                    waiting.push(np.ascontiguousarray(frame.rgb), _HEAD.pack(frame.index, frame.pts, frame.time_s))
                held = self._held(waiting)
                for index in range(last, start - 1, -1):
                    if held is not None and held.index == index:
                        yield held
                        held = self._held(waiting)
                    else:
                        yield from self.readable([index])
                last = start - 1

    def another(self) -> Self:
        """A second reader of the same frames, for another thread, which need not list them.

        Raises:
            InputError: the input cannot be opened any more.
        """
        other = copy.copy(self)
        other.warnings, other._cache, other._forward = list(self.warnings), OrderedDict(), None
        if isinstance(self._source, PictureSource):
            other._source = open_source(self._path, pixel_limit=self._pixel_limit)
        if self._decoder is not None:
            other._decoder = self._decoder.another(other.warnings)
        return other

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._source, PictureSource):
            self._source.close()
        if self._decoder is not None:
            self._decoder.close()
        self._forward = None
        self._cache.clear()

    def _new_decoder(self) -> SeekingDecoder:
        from vidseg.video.seeking import SeekingDecoder  # with PyAV, which folders of images do without

        return SeekingDecoder(self._path, self.info, self.warnings, self._pixel_limit)

    def _listed(self) -> list[int]:
        """Timestamps of all frames, from the packets; none where they cannot be trusted."""
        decoder = self._new_decoder()
        if not (decoder.seekable and decoder.trusted()):
            decoder.close()
            return []
        self._decoder = decoder
        promised, step = self.info.duration_s, float(1 / self.info.fps)
        seen = float((decoder.times[-1] - decoder.times[0]) * (self.info.time_base or 0)) + step
        if promised is not None and self.info.frame_count is None and seen < promised - max(0.5, 3 * step):
            self.warnings.append(f"truncated: the container names {promised:.2f} s, only {seen:.2f} s were found")
        return decoder.times

    def _listed_wrongly(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._cache.clear()
        before = self.count
        self._recount()
        self.count = len(self.times)
        if self.count != before:
            self.warnings.append(f"damaged: {before} frames were listed, {self.count} can be decoded")

    def _recount(self) -> None:
        """Decode all to know how many frames there are, and when."""
        source = open_source(self._path, pixel_limit=self._pixel_limit)
        times = [frame.pts for frame in source]
        self.warnings = list(source.warnings)
        if not times:
            raise InputError(f"{self.info.name}: not one frame could be read")
        decoder = self._new_decoder()
        if decoder.seekable and all(a < b for a, b in pairwise(times)) and set(times) <= set(decoder.times):
            decoder.use(times)
            self._decoder = decoder
        else:
            decoder.close()
        self.times = times

    def _seek(self, index: int) -> Frame:
        assert self._decoder is not None
        pixels = self.info.width * self.info.height * 3
        window = max(1, self._cache_bytes // pixels) - 1
        for frame in self._decoder.frames_to(index, window):
            self._keep(frame)
            if frame.index == index:
                return frame
        self._listed_wrongly()  # what was decoded is not what the packets promised
        if index >= self.count:
            raise InputError(f"{self.info.name}: frame {index} cannot be decoded; it has {self.count} frames")
        return self._read_forward(index)

    def _group_of(self, index: int) -> int:
        """The first of the frames that are decoded to get one."""
        if isinstance(self._source, PictureSource):
            return index
        return 0 if self._decoder is None else self._decoder.key_before(index)

    def _stretch(self, first: int, last: int) -> Iterator[Frame]:
        """Frames of a video in order, none of which is kept; fewer where decoding does not give them at once."""
        if self._decoder is not None:
            yield from self._decoder.stretch(first, last)
        elif not isinstance(self._source, PictureSource):
            yield from open_source(self._path, frames=slice(first, last + 1), pixel_limit=self._pixel_limit)

    def _held(self, waiting: ScratchStack) -> Frame | None:
        data = waiting.pop()
        if data is None:
            return None
        pixels = data[: -_HEAD.size].reshape(self.info.height, self.info.width, 3)
        index, pts, time_s = _HEAD.unpack(data[-_HEAD.size :].tobytes())
        return Frame(index, pts, time_s, pixels)

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
