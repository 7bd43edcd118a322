"""The sound of a video, copied beside new images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

_IN_MP4 = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"""Codecs whose packets MP4 takes as they are; others become AAC."""


class Sound:
    """The packets of a file's audio stream, in order of time. What cannot be read is left out: sound fails no run."""

    def __init__(self, container: Any, stream: Any) -> None:
        """See :meth:`of`."""
        self._container, self._stream = container, stream
        self._packets: Iterator[Any] = self._read()
        self._next: Any = None
        self._output: Any = None
        self._encoder: Any = None

    @classmethod
    def of(cls, path: Path) -> Sound | None:
        """The sound of a file, or None where there is none."""
        if not path.is_file():
            return None
        try:
            container = av.open(str(path))
        except (av.FFmpegError, OSError, ValueError):
            return None
        if not container.streams.audio or not container.streams.video:
            container.close()
            return None
        return cls(container, container.streams.audio[0])

    def add_to(self, container: Any) -> None:
        """Give a file that is about to be written its audio stream."""
        if self._stream.codec_context.name.partition("_")[0] in _IN_MP4:
            self._output = container.add_stream_from_template(self._stream)
        else:
            self._output = self._encoder = container.add_stream("aac", rate=self._stream.codec_context.sample_rate)
            self._encoder.layout = "stereo" if self._stream.codec_context.channels > 1 else "mono"

    def until(self, start_s: Fraction, end_s: Fraction) -> Iterator[Any]:
        """Packets for the output that begin from ``start_s`` on and before ``end_s``, not given before."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None:
                return
            time = self._next.pts * self._next.time_base
            if time >= end_s:
                return
            packet, self._next = self._next, None
            if time >= start_s:
                packet.stream = self._output
                yield packet

    def close(self) -> None:
        """Close the file."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    def _read(self) -> Iterator[Any]:
        with suppress(av.FFmpegError, OSError, ValueError):
            for packet in self._container.demux(self._stream):
                if packet.pts is None:
                    continue
                if self._encoder is None:
                    yield packet
                else:
                    for frame in packet.decode():
                        yield from self._encoder.encode(frame)
            if self._encoder is not None:
                yield from self._encoder.encode(None)
