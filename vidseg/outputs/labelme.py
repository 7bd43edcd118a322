"""LabelMe: one json of polygons per frame, for correcting masks by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.rle import decode_window
from vidseg.outputs.journal import journal_size, read_journal
from vidseg.types import Rle

_TOLERANCE = 1.0  # pixels a polygon may leave the mask's edge


def export_labelme(journal: Path, folder: Path) -> Path:
    """Write ``FOLDER/labelme/STEM.json`` per frame: the stem of the frame's own file, else its index as ``%05d``.

    Polygons are outer edges (holes are filled), ``group_id`` is the object id.

    Raises:
        InputError: the journal is unreadable or without objects.
        OutputError: a file cannot be written.
    """
    height, width = journal_size(journal)
    target = make_folder(folder / "labelme")
    for masks in read_journal(journal):
        shapes: list[dict[str, Any]] = [
            {
                "label": label or f"object {object_id}",
                "points": polygon,
                "group_id": object_id,
                "shape_type": "polygon",
                "flags": {},
            }
            for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True)
            for polygon in polygons(rle)
        ]
        record: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": masks.name or f"{masks.stem}.jpg",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        with atomic_file(target / f"{masks.stem}.json") as file:
            file.write(json.dumps(record).encode())
    return target


def polygons(rle: Rle) -> list[list[list[float]]]:
    """Outer edges of a mask as polygons [[x, y], ...] through pixel centres, at least three corners each."""
    window, y0, x0 = decode_window(rle)
    if not window.size:
        return []
    contours, _ = cv2.findContours(window.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    simple = [cv2.approxPolyDP(contour, _TOLERANCE, True)[:, 0] for contour in contours]
    return [corners.astype(float).tolist() for corners in simple if len(corners) >= 3]
