"""Video in and out.

* ``open_source(path, *, frames, pixel_limit, image_fps, threads) -> Source``: a video file, an image or a folder of
  images, or ``"-"`` for standard input. The source has ``info``, ``warnings``, ``close()`` and is iterated once.
* ``probe(path, *, pixel_limit) -> VideoInfo``: what is known without reading the whole input.
* ``VideoWriter(path, width, height, *, fps, time_base, crf, preset, threads)``: fragmented MP4 with the source's
  timestamps; ``write(rgb, pts)`` and ``close()``.
* ``PIXEL_LIMIT``: the default of ``pixel_limit``, pixels per frame.
"""

from __future__ import annotations

from vidseg.video.container import PIXEL_LIMIT
from vidseg.video.source import open_source, probe
from vidseg.video.writer import VideoWriter

__all__ = ["PIXEL_LIMIT", "VideoWriter", "open_source", "probe"]
