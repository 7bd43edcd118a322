"""MOTS as PNG: a 16-bit image per frame, pixel = 1000 x class + object, in a zip as CVAT imports it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from vidseg.atomic_files import atomic_file
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import MOTS_PNG
from vidseg.outputs.mots import PER_CLASS
from vidseg.outputs.recording import Recording

_MAX_CLASSES = 65  # 65,535 is the highest value of 16 bits


def write_mots_png(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, list[str]]:
    """Write ``FOLDER/mots.zip`` with ``train/instances/NAME.png`` and the names of the classes in ``labels.txt`` there.

    Class k is line k of that file: all of the class set where it has at most 65, else those that occur. NAME is that of
    the still, or ``frame_000012`` as CVAT calls the frames of a video. Objects whose number no 16 bits hold are left
    out, and returned as warnings.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: the file cannot be written.
    """
    hw = recording.hw
    names = recording.classes.names
    if len(names) > _MAX_CLASSES:
        used = {recording.classes.name_of(label) for label in recording.labels.values()}
        names = [name for name in names if name in used]
    values = np.zeros(max(recording.labels, default=0) + 1, np.uint16)
    left_out: list[str] = []
    for object_id, label in recording.labels.items():
        value = (names.index(recording.classes.name_of(label)) + 1) * PER_CLASS + object_id
        if object_id >= PER_CLASS or value > np.iinfo(np.uint16).max:
            left_out.append(f"mots-png: object {object_id} is left out: {value} is no number of a class and an object")
        else:
            values[object_id] = value
    with atomic_file(folder / MOTS_PNG) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("labels.txt"), "".join(f"{name}\n" for name in names))
        while (masks := (yield)) is not None:
            png = io.BytesIO()
            Image.fromarray(values[masks.with_hw(hw).label_map]).save(png, "PNG", compress_level=1)
            stem = f"frame_{masks.frame_index:06d}" if masks.name is None else PurePath(masks.name).stem
            archive.writestr(_entry(f"{stem}.png"), png.getvalue())
    return left_out


def _entry(name: str) -> zipfile.ZipInfo:
    """The same bytes whenever it is written."""
    return zipfile.ZipInfo(f"train/instances/{name}")
