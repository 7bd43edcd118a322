"""Result files: the journal, which is the source of truth, and what is made beside it or from it.

Sinks (``write(frame, masks)``, ``close()``), fed while the video runs:

* ``JournalSink(path, *, append=False)``: ``masks.jsonl``, one flushed line per frame.
* ``DavisSink(folder)``: one palette PNG per frame.
* ``OverlaySink(path, info)``: the video with masks drawn on it.
* ``frame_sinks`` and ``video_sinks``: all that the formats need of the frames: images, cut-outs, the overlay.
* ``ThumbnailSink()``: small images for the report, in ``.pictures``.

Made from the journal, now or later:

* ``read_journal(path) -> Iterator[FrameMasks]``.
* ``truncate_journal(path, before=None) -> int``: drops a half-written last line and all frames from ``before`` on;
  gives the number of frames that stay.
* ``export(open_recording(journal), folder, names) -> list[str]``: the formats of ``WRITERS`` in one pass; files appear
  atomically; the result says what of them was left out.
"""

from __future__ import annotations

from vidseg.outputs.davis import DavisSink
from vidseg.outputs.formats import FROM_FRAMES, WRITERS, export, frame_sinks, video_sinks
from vidseg.outputs.journal import JournalSink, read_journal, truncate_journal
from vidseg.outputs.overlay import OverlaySink, draw_masks
from vidseg.outputs.recording import Recording, open_recording
from vidseg.outputs.thumbnails import ThumbnailSink

__all__ = [
    "FROM_FRAMES",
    "WRITERS",
    "DavisSink",
    "JournalSink",
    "OverlaySink",
    "Recording",
    "ThumbnailSink",
    "draw_masks",
    "export",
    "frame_sinks",
    "open_recording",
    "read_journal",
    "truncate_journal",
    "video_sinks",
]
