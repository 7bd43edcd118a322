"""LabelMe: one json of polygons per frame, for correcting masks by hand."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path, PurePath
from typing import Any

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.polygons import polygons
from vidseg.outputs.layout import LABELME
from vidseg.outputs.recording import Recording


def write_labelme(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/labelme/STEM.json`` per frame, the stem being that of its image.

    ``group_id`` is the object id: an object in several parts has as many polygons. Holes are kept. The images are
    expected beside (:class:`vidseg.outputs.pictures.PictureSink`).

    Raises:
        InputError: the size of the frames is not known.
        OutputError: a file cannot be written.
    """
    height, width = recording.hw
    target = make_folder(folder / LABELME)
    while (masks := (yield)) is not None:
        picture = recording.picture(masks)
        shapes: list[dict[str, Any]] = [
            {
                "label": recording.name_of(object_id),
                "points": polygon.tolist(),
                "group_id": object_id,
                "shape_type": "polygon",
                "flags": {},
            }
            for object_id, rle in zip(masks.ids, masks.rles, strict=True)
            for polygon in polygons(rle)
        ]
        record: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": picture,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        with atomic_file(target / f"{PurePath(picture).stem}.json") as file:
            file.write(json.dumps(record).encode())
