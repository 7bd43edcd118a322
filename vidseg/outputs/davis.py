"""DAVIS: one palette PNG per frame, pixel value = object id, 0 = background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vidseg.errors import OutputError
from vidseg.masks.overlap import label_map
from vidseg.masks.palette import davis_palette
from vidseg.outputs.files import atomic_file, make_folder
from vidseg.outputs.journal import journal_size, read_journal
from vidseg.types import Frame, FrameMasks

MAX_ID = 255


class DavisSink:
    """Writes ``FOLDER/STEM.png`` for every frame: the stem of the frame's own file, else its index as ``%05d``."""

    def __init__(self, folder: Path) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created.
        """
        self._folder = make_folder(folder)
        self._palette = davis_palette().tobytes()

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Write one frame.

        Raises:
            OutputError: an id over 255, or the file cannot be written.
        """
        self.write_masks(masks, *frame.size)

    def write_masks(self, masks: FrameMasks, height: int, width: int) -> None:
        """Like :meth:`write`, where only the size of the frame is known."""
        if max(masks.ids, default=0) > MAX_ID:
            raise OutputError(f"frame {masks.frame_index}: object {max(masks.ids)} does not fit: DAVIS PNG ends at 255")
        image = Image.fromarray(label_map(masks, height, width).astype(np.uint8), "L")
        image.putpalette(self._palette)
        with atomic_file(self._folder / f"{masks.stem}.png") as file:
            image.save(file, "PNG", compress_level=1)

    def close(self) -> None:
        """Every file is finished when it is written."""


def export_davis(journal: Path, folder: Path) -> Path:
    """PNGs of all frames of a journal, in ``FOLDER/davis``.

    Raises:
        InputError: unreadable or without objects.
        OutputError: see :meth:`DavisSink.write`.
    """
    size = journal_size(journal)
    sink = DavisSink(folder / "davis")
    for masks in read_journal(journal):
        sink.write_masks(masks, *size)
    return folder / "davis"
