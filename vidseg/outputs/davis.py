"""DAVIS: one PNG per frame, pixel value = object id, 0 = background; a palette up to the id 255, 16-bit grey beyond."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from pathlib import Path

from PIL import Image

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import davis_palette
from vidseg.outputs.layout import DAVIS
from vidseg.outputs.recording import Recording
from vidseg.types import Frame

MAX_PALETTE_ID = 255
MAX_ID = 65535


class DavisSink:
    """Writes ``FOLDER/STEM.png`` for every frame: the stem of the frame's own file, else its index as ``%05d``."""

    def __init__(self, folder: Path) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created.
        """
        self._folder = make_folder(folder)
        self._palette = davis_palette().tobytes()
        self._left_out: list[int] = []
        self._largest = 0

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        """Write one frame.

        Raises:
            OutputError: the file cannot be written.
        """
        self.write_masks(masks.with_hw(frame.hw))

    def write_masks(self, masks: FrameMasks) -> None:
        """Like :meth:`write`; nothing of the frame but its size is needed."""
        largest = max(masks.ids, default=0)
        if largest > MAX_ID:
            self._left_out.append(masks.frame_index)
            self._largest = max(self._largest, largest)
            return
        image = Image.fromarray(masks.label_map)  # of 8 bits where all ids fit, else of 16
        if largest <= MAX_PALETTE_ID:
            image.putpalette(self._palette)
        with atomic_file(self._folder / f"{masks.stem}.png") as file:
            image.save(file, "PNG", compress_type=zlib.Z_RLE)  # half as large as with the fastest level, as fast

    @property
    def warnings(self) -> list[str]:
        """A line about the frames that were left out, because no PNG holds their ids."""
        if not self._left_out:
            return []
        first, count = self._left_out[0], len(self._left_out)
        what = f"frame {first} is" if count == 1 else f"{count} frames from frame {first} on are"
        return [f"davis: {what} left out: object {self._largest}; the ids of a PNG end at {MAX_ID}"]

    def close(self) -> None:
        """Every file is finished when it is written."""


def write_davis(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, list[str]]:
    """PNGs of all frames, in ``FOLDER/davis``; returns :attr:`DavisSink.warnings`.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: see :meth:`DavisSink.write`.
    """
    hw = recording.hw
    sink = DavisSink(folder / DAVIS)
    while (masks := (yield)) is not None:
        sink.write_masks(masks.with_hw(hw))
    return sink.warnings
