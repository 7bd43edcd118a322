"""Fragmented MP4 with the source's timestamps: what is written stays playable when the process is killed."""

from __future__ import annotations

import errno
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from vidseg.errors import OutputError
from vidseg.names import part_of
from vidseg.types import Array
from vidseg.video.sound import Sound

_FRAGMENT_SECONDS = 1  # of video, by its timestamps
_FRAGMENT_FRAMES = 250
_BT709, _BT601, _LIMITED_RANGE = 1, 6, 1  # numbers of ISO/IEC 23091-2


class VideoWriter:
    """Writes RGB frames as H.264 (MPEG-4 part 2 where the FFmpeg build has no x264) into a fragmented MP4.

    Odd sizes are padded by one pixel at the right or bottom, because 4:2:0 video has even sides. The file appears under
    its name as soon as its header is complete, and grows by a fragment, which begins with a key frame, per second of
    video, and at least every 250 frames.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        *,
        fps: Fraction = Fraction(25),
        time_base: Fraction | None = None,
        pixel_aspect: Fraction = Fraction(1),
        crf: int = 23,
        preset: str = "superfast",
        threads: int = 2,
        sound: Sound | None = None,
    ) -> None:
        """Create the file.

        ``time_base`` is the unit of ``pts`` in seconds (None: one frame), ``fps`` the usual rate, and ``pixel_aspect``
        the width of a pixel as it is shown, over its height. ``sound`` has the same times as the frames.

        Raises:
            OutputError: the file cannot be created.
        """
        self._path = path
        self._size = width, height
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._time_base = time_base or 1 / fps
        self._usual = 1 / fps
        self._last: int | None = None
        self._key: int | None = None
        self._closed = False
        self._sound = sound
        self._begin: Fraction | None = None
        part = part_of(path)
        try:
            self._container = av.open(
                str(part),
                "w",
                format="mp4",
                options={
                    # The last flag and the next option keep a first timestamp that is not zero.
                    "movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont",
                    "avoid_negative_ts": "make_non_negative",
                    "flush_packets": "1",
                },
            )
            if "libx264" in av.codecs_available:
                options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
                self._stream = self._container.add_stream("libx264", rate=fps, options=options)
            else:
                self._stream = self._container.add_stream("mpeg4", rate=fps, options={"q": "4"})
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = self._stream.codec_context.time_base = self._time_base
            context = self._stream.codec_context
            context.gop_size = _FRAGMENT_FRAMES
            context.sample_aspect_ratio = pixel_aspect
            context.thread_count = threads
            context.colorspace, context.color_range = _BT601, _LIMITED_RANGE  # what OpenCV converts to
            context.color_primaries = context.color_trc = _BT709
            if sound is not None:
                sound.add_to(self._container)
            self._container.start_encoding()
            part.replace(path)
        except (av.FFmpegError, OSError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise self._failure(error) from error

    def write(self, rgb: Array, pts: int) -> None:
        """Append one frame, uint8 RGB (H, W, 3). A ``pts`` that does not grow is moved to one unit after the last.

        Raises:
            OutputError: the frame has another size, or the file cannot be written (disk full).
        """
        if (rgb.shape[1], rgb.shape[0]) != self._size:
            raise OutputError(f"{self._path}: frame of {rgb.shape[1]}x{rgb.shape[0]}, expected {self._size}")
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._last = pts
        if self._pad != ((0, 0), (0, 0), (0, 0)):
            rgb = np.pad(rgb, self._pad, mode="edge")
        planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = pts, self._time_base
        if self._key is None or (pts - self._key) * self._time_base >= _FRAGMENT_SECONDS:
            self._key, frame.pict_type = pts, PictureType.I
        try:
            self._mux_sound(pts * self._time_base)
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _mux_sound(self, end: Fraction) -> None:
        """Write the sound from the first frame on and before ``end``."""
        if self._begin is None:
            self._begin = end
        if self._sound is not None:
            self._container.mux(list(self._sound.until(self._begin, end)))

    def close(self) -> None:
        """Write what the encoder holds back and finish the file. Further calls do nothing.

        Raises:
            OutputError: the rest cannot be written; what was written before stays playable.
        """
        if self._closed:
            return
        self._closed = True
        try:
            try:
                if self._last is not None:
                    self._mux_sound((self._last + 1) * self._time_base + self._usual)
                self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
                if self._sound is not None:
                    self._sound.close()
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OutputError:
        number = getattr(error, "errno", None)
        reason = "the disk is full" if number == errno.ENOSPC else getattr(error, "strerror", None) or str(error)
        return OutputError(f"{self._path}: cannot write the video: {reason}")
