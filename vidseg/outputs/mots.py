"""MOTS text: ``frame id class height width rle`` per line, id = 1000 * class + number of the object, frames from 0."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from vidseg.atomic_files import atomic_file
from vidseg.errors import PartialError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import MOTS
from vidseg.outputs.recording import Recording

PER_CLASS = 1000
"""Objects of one class, and one."""


def write_mots(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/mots.txt``.

    Raises:
        OutputError: the file cannot be written.
        PartialError: an object id over 999, which the format cannot hold; nothing is written.
    """
    with atomic_file(folder / MOTS) as file:
        while (masks := (yield)) is not None:
            for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True):
                if object_id >= PER_CLASS:
                    raise PartialError(
                        f"mots.txt is left out: object {object_id} does not fit, MOTS ids end at {PER_CLASS - 1}"
                    )
                kind = recording.classes.id_of(label)
                number = kind * PER_CLASS + object_id
                text = f"{masks.frame_index} {number} {kind} {rle.height} {rle.width} "
                file.write(text.encode() + rle.counts + b"\n")
