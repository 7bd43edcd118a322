"""YOLO segmentation: a text file of polygons per image, and the description of the data set."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path, PurePath

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.polygons import one_polygon
from vidseg.outputs.layout import YOLO
from vidseg.outputs.recording import Recording

YOLO_PICTURES = f"{YOLO}/images/train"
"""Where the images are: those who train look for the labels in the folder ``labels`` beside ``images``."""


def write_yolo(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/yolo/labels/train/PICTURE.txt`` per frame, and ``data.yaml``.

    A line is an object: the place of its class from 0, then x and y of every corner as parts of width and height. All
    parts of a mask are one polygon. A frame without objects has an empty file.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: a file cannot be written.
    """
    height, width = recording.hw
    target = make_folder(folder / YOLO / "labels" / "train")
    names = "".join(
        f"  {k}: {json.dumps(name, ensure_ascii=False)}\n" for k, name in enumerate(recording.classes.names)
    )
    with atomic_file(folder / YOLO / "data.yaml") as file:
        file.write(f"train: images/train\nval: images/train\nnames:\n{names}".encode())
    while (masks := (yield)) is not None:
        lines = []
        for label, rle in zip(masks.labels, masks.rles, strict=True):
            corners = ((one_polygon(rle) + 0.5) / (width, height)).ravel()
            lines.append(f"{recording.classes.rank_of(label) - 1} {' '.join(f'{v:.6f}' for v in corners)}\n")
        with atomic_file(target / f"{PurePath(recording.picture(masks)).stem}.txt") as file:
            file.write("".join(lines).encode())
