"""LabelMe: one json of polygons per frame, for correcting masks by hand."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.rle import decode_window
from vidseg.outputs.layout import LABELME
from vidseg.outputs.recording import Recording
from vidseg.types import FrameMasks, Rle

_TOLERANCE = 1.0  # pixels a polygon may leave the mask's edge


def write_labelme(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/labelme/STEM.json`` per frame, the stem being that of its picture.

    ``group_id`` is the object id.

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
                "points": polygon,
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


def polygons(rle: Rle) -> list[list[list[float]]]:
    """Outer edges of a mask as polygons [[x, y], ...] through pixel centres, at least three corners each."""
    window, y0, x0 = decode_window(rle)
    if not window.size:
        return []
    contours, _ = cv2.findContours(window.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    simple = [cv2.approxPolyDP(contour, _TOLERANCE, True)[:, 0] for contour in contours]
    return [corners.astype(float).tolist() for corners in simple if len(corners) >= 3]
