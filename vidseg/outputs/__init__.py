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

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.outputs.davis import DavisSink as DavisSink
    from vidseg.outputs.formats import FROM_FRAMES as FROM_FRAMES
    from vidseg.outputs.formats import WRITERS as WRITERS
    from vidseg.outputs.formats import export as export
    from vidseg.outputs.formats import frame_sinks as frame_sinks
    from vidseg.outputs.formats import video_sinks as video_sinks
    from vidseg.outputs.journal import JournalSink as JournalSink
    from vidseg.outputs.journal import read_journal as read_journal
    from vidseg.outputs.journal import truncate_journal as truncate_journal
    from vidseg.outputs.overlay import OverlaySink as OverlaySink
    from vidseg.outputs.overlay import draw_masks as draw_masks
    from vidseg.outputs.recording import Recording as Recording
    from vidseg.outputs.recording import open_recording as open_recording
    from vidseg.outputs.thumbnails import ThumbnailSink as ThumbnailSink

_LAZY = {  # imported when used: names of files and styles are needed long before images and videos are
    "davis": ("DavisSink",),
    "formats": ("FROM_FRAMES", "WRITERS", "export", "frame_sinks", "video_sinks"),
    "journal": ("JournalSink", "read_journal", "truncate_journal"),
    "overlay": ("OverlaySink", "draw_masks"),
    "recording": ("Recording", "open_recording"),
    "thumbnails": ("ThumbnailSink",),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(f"vidseg.outputs.{module}"), name)
    raise AttributeError(f"module 'vidseg.outputs' has no attribute {name!r}")
