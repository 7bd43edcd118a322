"""Cameras, streams and standard input: connect again when the connection is lost, one size, one growing time line."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np

from vidseg.errors import InputError
from vidseg.types import Array, Frame, Gap, Source
from vidseg.video.reader import VideoSource
from vidseg.video.reading import DEFAULT_BACKOFF, Backoff, frame_bounds
from vidseg.video.watchdog import READ_TIMEOUT_S, StoppedError, Watchdog

WAITING_FRAMES = 8
"""Frames that wait at most when the oldest are dropped."""

MAX_WARNINGS = 50
"""Warnings kept of a source that may run for weeks."""

_TIME_BASE = Fraction(1, 90_000)


class LiveSource(Source):
    """Frames of a source that has no known end and cannot be read again.

    * ``Frame.index`` counts the delivered frames: it never repeats and has no holes, whatever was lost.
    * Time counts from the first frame. Within a connection it is the stream's; while there is none it is the clock's.
    * Frames of another size than the first are scaled to fit into it, their shape kept, the rest black, so that masks
      and ids stay valid.
    * What was lost or changed stands in ``Frame.gap`` of the next frame.
    """

    def __init__(
        self,
        first: VideoSource,
        connect: Callable[[Watchdog], VideoSource],
        *,
        frames: slice | None = None,
        backoff: Backoff = DEFAULT_BACKOFF,
        drop_oldest: bool = False,
        limit_s: float = READ_TIMEOUT_S,
    ) -> None:
        """``connect`` opens the input again; ``frames`` chooses among the delivered frames."""
        self.live = True
        self.warnings: list[str] = []
        self.notes = first.notes
        self.notice: Callable[[str], object] = lambda text: None
        """Told when the connection is lost and when there is one again, from the thread that reads."""
        self._connect, self._backoff, self._limit_s = connect, backoff, limit_s
        self._start, self._end = frame_bounds(frames)
        self._drop_oldest = drop_oldest
        self._stopped = threading.Event()
        self._wake = first.stop
        self._connection: VideoSource | None = first
        self.info = replace(first.info, frame_count=None, duration_s=None, time_base=_TIME_BASE)

    def __iter__(self) -> Iterator[Frame]:
        """Deliver frames until the stream is lost for good, :meth:`stop`, or the end of the chosen frames."""
        if self._connection is None:
            raise InputError(f"{self.info.name}: a live source is read once")
        frames: Iterable[Frame] = self._frames()
        if self._drop_oldest:
            frames = newest(frames, WAITING_FRAMES)
        index = -1
        try:
            for index, frame in enumerate(frames):
                if index >= self._start:
                    yield replace(frame, index=index)
                if index + 1 >= self._end:
                    return
        finally:
            self.close()
        if index < self._start and not self._stopped.is_set():
            raise InputError(f"{self.info.name}: frames start at {self._start}, but it gave only {index + 1}")

    def stop(self) -> None:
        """End the iteration, also while it waits for a frame or for a connection."""
        self._stopped.set()
        self._wake()

    def close(self) -> None:
        """Stop, and close the connection."""
        self.stop()
        connection = self._connection  # another thread may replace it meanwhile, and closes it then: see _reconnect
        if connection is not None:
            connection.close()

    def _frames(self) -> Generator[Frame]:
        """Frames of all connections, one time line; indices are given by who delivers them."""
        time_line, size, pending = _TimeLine(1 / self.info.fps), (self.info.width, self.info.height), None
        while self._connection is not None and not self._stopped.is_set():
            reason = ""
            try:
                for frame in self._connection:
                    height, width = frame.hw
                    change = None if (width, height) == size else Gap(source_size=(width, height))
                    gap = change if pending is None else pending + change
                    seconds = time_line.place(frame.time_s, pending)
                    size, pending = (width, height), None
                    pts = round(seconds / _TIME_BASE)
                    rgb = _fit(frame.rgb, self.info.width, self.info.height)
                    yield Frame(0, pts, float(pts * _TIME_BASE), rgb, gap)
            except InputError as error:
                reason = str(error)
            self.warnings += self._connection.warnings[: MAX_WARNINGS - len(self.warnings)]
            if not self._stopped.is_set():
                pending = self._reconnect(reason, self._connection.last_data)

    def _reconnect(self, reason: str, last_data: float) -> Gap | None:
        """Replace the connection; without success it is None and :attr:`warnings` says so.

        ``reason``: what was wrong with it; empty when it ended in order, which is how standard input ends.
        """
        self._connection, delay = None, self._backoff.first_s
        why = reason or f"{self.info.name}: the stream ended"
        last_failure = ""
        if self._backoff.attempts:
            self.notice(f"{why}; connecting again, up to {self._backoff.attempts} times")
        for attempt in range(1, self._backoff.attempts + 1):
            if self._stopped.wait(delay):
                return None
            delay = min(2 * delay, self._backoff.cap_s)
            watchdog = Watchdog(self._limit_s)
            self._wake = watchdog.stop
            if self._stopped.is_set():  # asked for before the new watchdog could hear it
                watchdog.close(lambda: None)
                return None
            try:
                self._connection = connection = self._connect(watchdog)
            except StoppedError:
                return None
            except InputError as error:
                last_failure = f" ({error})"
                continue
            if self._stopped.is_set():  # asked for before there was a connection that could be closed
                connection.close()
                return None
            gap = Gap(round(time.monotonic() - last_data, 3), attempt, reason=why)
            self.notice(f"{self.info.name}: connected again after {gap.seconds:.1f} s")
            return gap
        if self._backoff.attempts:
            why += f"; given up after {self._backoff.attempts} attempts to connect again{last_failure}"
        if self._backoff.attempts or reason:
            self.warnings.append(why)
        return None


class _TimeLine:
    """Seconds since the first frame, always growing."""

    def __init__(self, step: Fraction) -> None:
        self._step = float(step)
        self._offset: float | None = None
        self._last = -self._step

    def place(self, own: float, lost: Gap | None) -> float:
        """The time of a frame that the connection places at ``own``; ``lost`` before the first of a new connection."""
        if self._offset is None or lost is not None:
            self._offset = self._last + max(self._step, lost.seconds if lost else 0.0) - own
        elif own + self._offset <= self._last:  # the stream began again
            self._offset = self._last + self._step - own
        self._last = own + self._offset
        return self._last


def newest(frames: Iterable[Frame], size: int) -> Iterator[Frame]:
    """Read ``frames`` in a thread as fast as they come; of those that wait, at most ``size``, the oldest are dropped.

    The gap of a frame holds the number dropped directly before it, and their own gaps.
    """
    waiting: deque[Frame] = deque()
    lost: list[Gap] = []
    ended: list[BaseException | None] = []
    change = threading.Condition()

    def read() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with change:
                    if len(waiting) == size:
                        old = waiting.popleft()
                        lost.append(Gap(dropped=1) if old.gap is None else old.gap + Gap(dropped=1))
                    waiting.append(frame)
                    change.notify()
        except BaseException as raised:
            error = raised
        with change:
            ended.append(error)
            change.notify()

    threading.Thread(target=read, name="vidseg-newest", daemon=True).start()
    while True:
        with change:
            change.wait_for(lambda: waiting or ended)
            if not waiting:
                if ended[0] is not None:
                    raise ended[0]
                return
            frame = waiting.popleft()
            gap = sum(lost[1:], lost[0]) + frame.gap if lost else frame.gap
            lost.clear()
        yield replace(frame, gap=gap)


def _fit(rgb: Array, width: int, height: int) -> Array:
    """The image scaled to fit into ``width`` x ``height``, its shape kept, in the middle of black."""
    h, w = rgb.shape[:2]
    if (w, h) == (width, height):
        return rgb
    scale = min(width / w, height / h)
    new_w, new_h = max(1, round(w * scale)), max(1, round(h * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - new_h) // 2, (width - new_w) // 2
    out[y : y + new_h, x : x + new_w] = cv2.resize(rgb, (new_w, new_h), interpolation=kind)
    return out
