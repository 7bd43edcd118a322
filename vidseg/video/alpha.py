"""Video with transparency: VP9 in WebM, which browsers and editors read."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidseg.errors import OutputError
from vidseg.names import part_of
from vidseg.types import Array


class AlphaWriter:
    """Writes RGBA frames; the file takes its name when it is complete."""

    def __init__(self, path: Path, width: int, height: int, *, fps: Fraction, time_base: Fraction) -> None:
        """Create the file; ``time_base`` is the unit of ``pts`` in seconds.

        Raises:
            OutputError: the file cannot be created, or the FFmpeg build has no VP9.
        """
        self._path, self._part, self._time_base = path, part_of(path), time_base
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._last: int | None = None
        self._closed = False
        if "libvpx-vp9" not in av.codecs_available:
            raise OutputError(f"{path}: this FFmpeg cannot write VP9; take the format cutout instead")
        try:
            self._container = av.open(str(self._part), "w", format="webm")
            options = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "auto-alt-ref": "0"}
            self._stream = self._container.add_stream("libvpx-vp9", rate=fps, options=options)
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuva420p"
            self._stream.time_base = self._stream.codec_context.time_base = time_base
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def write(self, rgba: Array, pts: int) -> None:
        """Append one frame, uint8 RGBA (H, W, 4). A ``pts`` that does not grow is moved to one unit after the last.

        Raises:
            OutputError: the file cannot be written (disk full).
        """
        pts = pts if self._last is None else max(pts, self._last + 1)
        self._last = pts
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(rgba, self._pad, mode="edge")), format="rgba")
        frame = frame.reformat(format="yuva420p")
        frame.pts, frame.time_base = pts, self._time_base
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Finish the file and give it its name; without a frame there is none. Further calls do nothing.

        Raises:
            OutputError: the rest cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            try:
                if self._last is not None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
            if self._last is None:  # nothing was opened on the disk
                self._part.unlink(missing_ok=True)
            else:
                self._part.replace(self._path)
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OutputError:
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
        return OutputError(f"{self._path}: cannot write the video: {getattr(error, 'strerror', None) or error}")
