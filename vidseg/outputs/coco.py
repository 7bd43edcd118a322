"""COCO: a data set that ``pycocotools.coco.COCO`` opens, and the list of results that its ``loadRes`` takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import area
from vidseg.outputs.layout import COCO, COCO_RESULTS
from vidseg.outputs.recording import Recording

_PER_VIDEO = 1_000_000_000
"""Images and annotations that one video may have: those of different ``video_id`` never share a number."""


def write_coco(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/coco.json``: info, videos, categories, images and annotations.

    An image has its ``file_name``, ``video_id`` and ``frame_id`` (index of the frame), an annotation its ``track_id``
    (id of the object) and ``score`` besides the usual. Masks are run-lengths with ``iscrowd`` 0.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: the file cannot be written.
    """
    height, width = recording.hw
    number = (recording.video_id - 1) * _PER_VIDEO
    head = {
        "info": {"description": recording.video, "version": "1.0", "contributor": "vidseg"},
        "licenses": [],
        "videos": [{"id": recording.video_id, "name": recording.video, "width": width, "height": height}],
        "categories": [{"id": i, "name": n, "supercategory": ""} for n, i in recording.classes.ids.items()],
    }
    with atomic_file(folder / COCO) as file, tempfile.TemporaryFile(dir=folder) as annotations:
        file.write(json.dumps(head)[:-1].encode() + b',\n"images": [')
        separator = image_separator = b""
        while (masks := (yield)) is not None:
            image = {
                "id": _image_id(recording, masks),
                "file_name": recording.picture(masks),
                "width": width,
                "height": height,
                "video_id": recording.video_id,
                "frame_id": masks.frame_index,
            }
            file.write(image_separator + json.dumps(image).encode())
            image_separator = b",\n"
            for entry, pixels in _entries(recording, masks):
                number += 1
                annotations.write(
                    separator + json.dumps({"id": number, **entry, "area": pixels, "iscrowd": 0}).encode()
                )
                separator = b",\n"
        file.write(b'],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        file.write(b"]}\n")


def write_coco_results(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/coco_results.json``, a list with one entry per object and frame.

    {image_id, file_name, category_id, category_name, track_id, bbox (XYWH), score, segmentation}; the numbers are those
    of ``coco.json``, and frames of a video have no file_name.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(folder / COCO_RESULTS) as file:
        separator = b"["
        while (masks := (yield)) is not None:
            for entry, _ in _entries(recording, masks):
                name = recording.classes.name_of(recording.labels[entry["track_id"]])
                file_name = {} if masks.name is None else {"file_name": masks.name}
                file.write(separator + json.dumps({**file_name, **entry, "category_name": name}).encode())
                separator = b",\n"
        file.write(b"[]\n" if separator == b"[" else b"]\n")


def _image_id(recording: Recording, masks: FrameMasks) -> int:
    return (recording.video_id - 1) * _PER_VIDEO + masks.frame_index


def _entries(recording: Recording, masks: FrameMasks) -> Iterator[tuple[dict[str, Any], int]]:
    """What annotations and results share, and the number of pixels, of every object on a frame."""
    rows = zip(masks.ids, masks.boxes.tolist(), masks.scores.tolist(), masks.labels, masks.rles, strict=True)
    for object_id, (x1, y1, x2, y2), score, label, rle in rows:
        entry = {
            "image_id": _image_id(recording, masks),
            "category_id": recording.classes.id_of(label),
            "track_id": object_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": round(score, 6),
            "segmentation": rle.to_coco(),
        }
        yield entry, area(rle)
