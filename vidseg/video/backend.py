"""Other decoders (decord; torchcodec, also on a GPU) in a process of their own: what hangs or crashes is an error here.

They are not trusted: decord loses or repeats frames of MPEG-TS and of edit lists, and may hang. So PyAV opens the file
first (refused formats, sizes), counts its frames and reads its first one, and what the other decoder gives must agree.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from array import array
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np

from vidseg.address import Address
from vidseg.errors import InputError
from vidseg.limits import PIXEL_LIMIT
from vidseg.types import Array, Frame, Source
from vidseg.video.container import open_container
from vidseg.video.reader import VideoSource
from vidseg.video.reading import frame_bounds
from vidseg.video.watchdog import READ_TIMEOUT_S, StoppedError, Watchdog

MAX_DIFFERENCE = 12.0
"""Mean difference of the first frame from PyAV's, in grey levels of 255, that rounding and colour matrices explain."""

_STEP = 1000  # packets per call of the watchdog


class BackendSource(Source):
    """Frames of a video file decoded by ``reader``; indices and timestamps are those of PyAV."""

    def __init__(
        self,
        reader: str,
        address: Address,
        *,
        frames: slice | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        limit_s: float = READ_TIMEOUT_S,
    ) -> None:
        """Compare what ``reader`` says of the file with PyAV.

        Raises:
            InputError: PyAV cannot read it; ``reader`` is not installed, cannot read it, or finds another number of
                frames or another first frame.
        """
        self.live = False
        self.warnings: list[str] = []
        self._reader, self._name = reader, address.shown
        self._start, self._stop = frame_bounds(frames)
        first = VideoSource(address, pixel_limit=pixel_limit, watchdog=Watchdog(limit_s))
        self.info, self.notes = first.info, first.notes
        self._first = next(iter(first)).rgb
        first.close()
        self._watchdog = Watchdog(limit_s)
        self._child: subprocess.Popen[bytes] | None = None
        try:
            self._pts = self._timestamps(address, pixel_limit)
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "vidseg.video.backend_child", reader, os.path.abspath(address.url)],  # noqa: PTH100
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            count = self._receive(f"{self._name}: opening it with {reader}")
            if count["frames"] != len(self._pts):
                raise InputError(
                    f"{self._name}: {reader} finds {count['frames']} frames, PyAV {len(self._pts)}: leave out --reader"
                )
            if self._start >= len(self._pts):
                raise InputError(f"{self._name}: frames start at {self._start}, but it has only {len(self._pts)}")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Deliver the chosen frames.

        Raises:
            InputError: it was read or closed; a frame takes longer than the limit, is not what PyAV promised, or the
                process ended.
        """
        self._watchdog.check_unread(self._name)
        time_base = self.info.time_base or 1 / self.info.fps
        try:
            for index, pts in enumerate(self._pts):
                if index >= self._stop:
                    return
                rgb = self._frame(index)
                if index >= self._start:
                    yield Frame(index, pts, float(pts * time_base), rgb)
        except StoppedError:
            return
        finally:
            self.close()

    def stop(self) -> None:
        """End the iteration."""
        self._watchdog.stop()

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._watchdog.close(self._release)

    def _release(self) -> None:
        if self._child is not None and self._child.stdout is not None:
            self._child.stdout.close()

    def _timestamps(self, address: Address, pixel_limit: int) -> array[int]:
        """Timestamps of all frames, from the packets alone, in the order of display."""
        packets = _packet_times(address, pixel_limit)
        result: array[int] = array("q")
        while (part := self._watchdog.call(lambda: next(packets, None), f"{self._name}: counting frames")) is not None:
            result.extend(part)
        result = array("q", sorted(result))
        if any(a == b for a, b in pairwise(result)):  # a container without timestamps
            step = round(1 / self.info.fps / (self.info.time_base or Fraction(1, 1000)))
            return array("q", range(0, step * len(result), step))
        return result

    def _frame(self, index: int) -> Array:
        what = f"{self._name}: {self._reader}, frame {index}"
        header = self._receive(what)
        size = header.get("height"), header.get("width")
        if size != (self.info.height, self.info.width):
            wanted = f"{self.info.width}x{self.info.height}"
            raise InputError(f"{what}: is {size[1]}x{size[0]}, PyAV reads {wanted}: leave out --reader")
        data = self._watchdog.call(lambda: self._read(self.info.height * self.info.width * 3), what)
        rgb = np.frombuffer(data, np.uint8).reshape(self.info.height, self.info.width, 3)
        if index == 0 and np.abs(rgb.astype(np.int16) - self._first).mean() > MAX_DIFFERENCE:
            raise InputError(f"{what}: the first image differs from PyAV's: leave out --reader")
        return rgb

    def _receive(self, what: str) -> dict[str, int]:
        """The next message: json with its length before it."""
        message = json.loads(self._watchdog.call(lambda: self._read(*struct.unpack("<I", self._read(4))), what))
        if "error" in message:
            raise InputError(f"{what}: {message['error']}")
        return dict(message)

    def _read(self, size: int) -> bytearray:
        assert self._child is not None and self._child.stdout is not None
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            got = self._child.stdout.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise InputError(f"{self._name}: the process of {self._reader} ended (code {self._child.wait()})")
            done += got
        return data


def _packet_times(address: Address, pixel_limit: int) -> Generator[list[int]]:
    """Timestamps of the packets that become frames, some at a time; 0 where a packet has none."""
    container, stream = open_container(address, pixel_limit=pixel_limit)
    with container:
        part: list[int] = []
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                part.append(packet.pts or 0)
            if len(part) == _STEP:
                yield part
                part = []
        yield part
