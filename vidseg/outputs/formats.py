"""All formats that a run can be exported to, and the one pass over its journal that writes them.

The writer of a format is a generator: it is sent one :class:`~vidseg.masks.frame_masks.FrameMasks` after the other
and then None, and returns what it had to leave out. So a format reads from top to bottom, and any number of them share
a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from vidseg.errors import PartialError
from vidseg.masks.frame_masks import FrameMasks, Sink
from vidseg.outputs.coco import write_coco, write_coco_results
from vidseg.outputs.cvat import write_cvat
from vidseg.outputs.datumaro import DATUMARO_PICTURES, write_datumaro
from vidseg.outputs.davis import write_davis
from vidseg.outputs.label_studio import write_label_studio
from vidseg.outputs.labelme import write_labelme
from vidseg.outputs.layout import CUTOUT, CUTOUT_VIDEO, FRAMES, LABELME, OVERLAY
from vidseg.outputs.mots import write_mots
from vidseg.outputs.mots_png import write_mots_png
from vidseg.outputs.overlay import OverlaySink
from vidseg.outputs.parquet import write_parquet
from vidseg.outputs.pictures import CutoutSink, CutoutVideoSink, PictureSink
from vidseg.outputs.recording import Recording
from vidseg.outputs.report import write_report
from vidseg.outputs.style import OverlayStyle
from vidseg.outputs.yolo import YOLO_PICTURES, write_yolo
from vidseg.outputs.ytvis import write_ytvis
from vidseg.types import VideoInfo

Writer: TypeAlias = Generator[None, FrameMasks | None, Sequence[str] | None]

WRITERS: Mapping[str, Callable[[Recording, Path], Writer]] = {
    "ytvis": write_ytvis,
    "coco": write_coco,
    "coco-results": write_coco_results,
    "mots": write_mots,
    "mots-png": write_mots_png,
    "cvat": write_cvat,
    "davis": write_davis,
    "labelme": write_labelme,
    "label-studio": write_label_studio,
    "yolo": write_yolo,
    "datumaro": write_datumaro,
    "parquet": write_parquet,
    "report": write_report,
}
"""What is made of the journal: a writer into a folder, by the format's name."""

WITH_PICTURES: Mapping[str, str] = {
    "frames": FRAMES,
    "labelme": LABELME,
    "yolo": YOLO_PICTURES,
    "datumaro": DATUMARO_PICTURES,
}
"""Formats with the images of the frames, and the folders for them."""

FROM_FRAMES = (*WITH_PICTURES, "cutout", "cutout-webm", "overlay", "report")
"""Formats that need the frames of the video, those in :data:`WRITERS` for their pictures only."""


def frame_sinks(folder: Path, names: Sequence[str], info: VideoInfo, stills: Path | None = None) -> list[Sink]:
    """Sinks for all that the formats need of the frames, one file per frame; ``stills``: where they are files.

    Raises:
        OutputError: a folder cannot be created.
    """
    sinks: list[Sink] = [PictureSink(folder / WITH_PICTURES[n], info.name, stills) for n in names if n in WITH_PICTURES]
    return [*sinks, CutoutSink(folder / CUTOUT, info.name)] if "cutout" in names else sinks


def video_sinks(
    folder: Path, names: Sequence[str], info: VideoInfo, style: OverlayStyle, source: Path | None = None
) -> list[Sink]:
    """Sinks of the formats that are one video; the overlay has a ``style`` and the sound of the file ``source``.

    Raises:
        OutputError: a file cannot be created.
    """
    sinks: list[Sink] = [CutoutVideoSink(folder / CUTOUT_VIDEO, info)] if "cutout-webm" in names else []
    return [*sinks, OverlaySink(folder / OVERLAY, info, style, source)] if "overlay" in names else sinks


def export(recording: Recording, folder: Path, names: Sequence[str]) -> list[str]:
    """Write formats of :data:`WRITERS` into ``folder`` in one pass; the reasons why parts of them were left out.

    Raises:
        InputError: the journal is unreadable or has nothing that the format could hold.
        OutputError: a file cannot be written. No half file is left behind.
    """
    left_out: list[str] = []
    writers = {name: WRITERS[name](recording, folder) for name in names}
    try:
        for name in names:
            next(writers[name])
        for masks in recording.read() if writers else ():
            for name in list(writers):
                _send(writers, name, masks, left_out)
        for name in list(writers):
            _send(writers, name, None, left_out)
    finally:
        for writer in writers.values():
            writer.close()
    return left_out


def _send(writers: dict[str, Writer], name: str, masks: FrameMasks | None, left_out: list[str]) -> None:
    """Go on with one writer; None ends it."""
    try:
        writers[name].send(masks)
    except StopIteration as end:
        del writers[name]
        left_out += end.value or ()
    except PartialError as error:  # the other formats can
        del writers[name]
        left_out.append(str(error))
