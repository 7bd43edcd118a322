"""Video in and out.

* ``open_source(path, *, frames, ...) -> Source``: a video file, an image or a folder of images, a camera, a stream, or
  ``"-"`` for standard input. It has ``info``, ``warnings``, ``live``, ``stop()``, ``close()`` and is iterated once.
* ``Backoff(attempts, first_s, cap_s)``: how a lost camera or stream is connected to again.
* ``LiveSource``: the source of a camera, a stream or standard input; its ``notice`` says that a connection was lost.
* ``probe(path, *, pixel_limit) -> VideoInfo``: what is known without reading the whole input.
* ``VideoWriter(path, width, height, *, fps, time_base, crf, preset, threads)``: fragmented MP4 with the source's
  timestamps; ``write(rgb, pts)`` and ``close()``.
* ``PIXEL_LIMIT``: the default of ``pixel_limit``, pixels per frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidseg.limits import PIXEL_LIMIT
from vidseg.video.reading import Backoff
from vidseg.video.source import open_source, probe

if TYPE_CHECKING:
    from vidseg.video.live import LiveSource as LiveSource
    from vidseg.video.writer import VideoWriter as VideoWriter

__all__ = ["PIXEL_LIMIT", "Backoff", "LiveSource", "VideoWriter", "open_source", "probe"]


def __getattr__(name: str) -> Any:
    """What needs PyAV is imported when it is used: folders of images do without."""
    if name == "LiveSource":
        from vidseg.video.live import LiveSource

        return LiveSource
    if name == "VideoWriter":
        from vidseg.video.writer import VideoWriter

        return VideoWriter
    raise AttributeError(f"module 'vidseg.video' has no attribute {name!r}")
