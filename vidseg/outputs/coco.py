"""COCO results: one entry per object and frame, ``image_id`` = frame index."""

from __future__ import annotations

import json
from pathlib import Path

from vidseg.atomic_files import atomic_file
from vidseg.masks.rle import area
from vidseg.outputs.categories import category_ids
from vidseg.outputs.journal import read_journal


def export_coco(journal: Path, folder: Path) -> Path:
    """Write ``FOLDER/coco.json``, a list of {image_id, category_id, track_id, bbox (XYWH), score, segmentation}.

    Entries of a frame that is a file of its own have its ``file_name`` too.

    Raises:
        InputError: the journal is unreadable.
        OutputError: the file cannot be written.
    """
    path = folder / "coco.json"
    categories = category_ids(journal)
    with atomic_file(path) as file:
        separator = b"["
        for masks in read_journal(journal):
            rows = zip(masks.ids, masks.boxes.tolist(), masks.scores.tolist(), masks.labels, masks.rles, strict=True)
            for object_id, (x1, y1, x2, y2), score, label, rle in rows:
                if not area(rle):
                    continue
                entry = {
                    "image_id": masks.frame_index,
                    **({} if masks.name is None else {"file_name": masks.name}),
                    "category_id": categories[label],
                    "track_id": object_id,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": round(score, 6),
                    "segmentation": rle.to_coco(),
                }
                file.write(separator + json.dumps(entry).encode())
                separator = b",\n"
        file.write(b"[]\n" if separator == b"[" else b"]\n")
    return path
