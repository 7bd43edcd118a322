"""MOTS text: ``frame id class height width rle`` per line, id = 1000 * class + number of the object, frames from 0."""

from __future__ import annotations

from pathlib import Path

from vidseg.atomic_files import atomic_file
from vidseg.errors import PartialError
from vidseg.masks.rle import area
from vidseg.outputs.categories import category_ids
from vidseg.outputs.journal import read_journal

_PER_CLASS = 1000


def export_mots(journal: Path, folder: Path) -> Path:
    """Write ``FOLDER/mots.txt``.

    Raises:
        InputError: the journal is unreadable.
        OutputError: the file cannot be written.
        PartialError: an object id over 999, which the format cannot hold; nothing is written.
    """
    path = folder / "mots.txt"
    categories = category_ids(journal)
    with atomic_file(path) as file:
        for masks in read_journal(journal):
            for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True):
                if not area(rle):
                    continue
                if object_id >= _PER_CLASS:
                    raise PartialError(
                        f"mots.txt is left out: object {object_id} does not fit, MOTS ids end at {_PER_CLASS - 1}"
                    )
                kind = categories[label]
                number = kind * _PER_CLASS + object_id
                text = f"{masks.frame_index} {number} {kind} {rle.height} {rle.width} "
                file.write(text.encode() + rle.counts + b"\n")
    return path
