"""What one video may take of a worker's time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from vidseg.errors import InputError
from vidseg.masks.frame_masks import FrameMasks
from vidseg_pipelines.streaming import Preempted

GRACE_S = 10.0
"""Seconds that a video has to end by itself once it has gone beyond a limit."""


@dataclass(frozen=True)
class VideoLimits:
    """``seconds`` of one attempt, and ``gigabytes`` (of 2^30 bytes) of memory that the worker's process holds."""

    seconds: float | None = None
    gigabytes: float | None = None


class VideoWatch:
    """Progress of the video that a worker is at, and whether it keeps to its limits.

    :meth:`check` is called by another thread every second, :meth:`advance` between frames; that one raises. A video
    that does not come to its next frame is given up: ``on_stuck(reason)`` records that, and the process ends.
    """

    def __init__(self, limits: VideoLimits, stop: Callable[[], bool], on_stuck: Callable[[str], object]) -> None:
        """Begin to count."""
        self._limits, self._stop, self._on_stuck = limits, stop, on_stuck
        self._begun, self._beyond = time.monotonic(), 0.0
        self.reason = ""
        self.frames = 0
        self.total: int | None = None

    def progress(self) -> tuple[int, int | None]:
        """Frames done in this attempt, and how many there are to do, where that is known."""
        return self.frames, self.total

    def advance(self, results: Sequence[FrameMasks]) -> None:
        """More frames are done.

        Raises:
            InputError: the video has gone beyond a limit. Preempted: the worker is to stop.
        """
        self.frames += len(results)
        if self.reason:
            raise InputError(self.reason)
        if self._stop():
            raise Preempted

    def check(self) -> None:
        """Look at the limits."""
        if not self.reason:
            self.reason = self._reason()
            self._beyond = time.monotonic()
        elif time.monotonic() - self._beyond > GRACE_S:
            self._on_stuck(f"{self.reason}, and did not come to its next frame")
            os._exit(1)

    def _reason(self) -> str:
        limits, seconds = self._limits, time.monotonic() - self._begun
        if limits.seconds is not None and seconds > limits.seconds:
            return f"took longer than --video-timeout {limits.seconds:g} s"
        if limits.gigabytes is not None:
            held = psutil.Process().memory_info().rss / 2**30
            if held > limits.gigabytes:
                return f"took {held:.1f} GiB, more than --video-memory {limits.gigabytes:g}"
        return ""
