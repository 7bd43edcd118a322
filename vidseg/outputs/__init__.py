"""Result files: the journal, which is the source of truth, and what is made beside it or from it.

Sinks (``write(frame, masks)``, ``close()``), fed while the video runs:

* ``JournalSink(path, *, append=False)``: ``masks.jsonl``, one flushed line per frame.
* ``DavisSink(folder)``: one palette PNG per frame.
* ``OverlaySink(path, info)``: the video with masks drawn on it.
* ``ThumbnailSink(limit=6)``: a few small pictures for the report, in ``.pictures``.

Made from the journal, now or later:

* ``read_journal(path) -> Iterator[FrameMasks]``.
* ``truncate_journal(path, before=None) -> int``: drops a half-written last line and all frames from ``before`` on;
  gives the number of frames that stay.
* ``EXPORTERS[name](journal, folder) -> Path``: ytvis, coco, mots, davis, labelme, report; files appear atomically.
* ``write_report(journal, path, *, title, pictures)``: the report with pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vidseg.outputs.coco import export_coco
from vidseg.outputs.davis import DavisSink, export_davis
from vidseg.outputs.journal import JournalSink, read_journal, truncate_journal
from vidseg.outputs.labelme import export_labelme
from vidseg.outputs.mots import export_mots
from vidseg.outputs.overlay import OverlaySink, draw_masks
from vidseg.outputs.report import ThumbnailSink, export_report, write_report
from vidseg.outputs.ytvis import export_ytvis

EXPORTERS: Mapping[str, Callable[[Path, Path], Path]] = {
    "ytvis": export_ytvis,
    "coco": export_coco,
    "mots": export_mots,
    "davis": export_davis,
    "labelme": export_labelme,
    "report": export_report,
}
"""Formats that need nothing but the journal: ``export(journal, folder) -> the file or folder written``."""

__all__ = [
    "EXPORTERS",
    "DavisSink",
    "JournalSink",
    "OverlaySink",
    "ThumbnailSink",
    "draw_masks",
    "export_coco",
    "export_davis",
    "export_labelme",
    "export_mots",
    "export_report",
    "export_ytvis",
    "read_journal",
    "truncate_journal",
    "write_report",
]
