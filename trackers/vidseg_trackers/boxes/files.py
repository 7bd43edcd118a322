"""Boxes of any detector or tracker, read from the common file formats into one form."""

from __future__ import annotations

from pathlib import Path

from vidseg.errors import InputError
from vidseg.outputs.journal import read_journal
from vidseg.text import read_json, read_text
from vidseg_trackers.boxes.read_json import read_json_boxes
from vidseg_trackers.boxes.read_text import read_lines, read_yolo_folder
from vidseg_trackers.detections import BoxFile, Detection, corners, with_positive_ids


def read_boxes(path: Path, *, video_id: int | None = None) -> BoxFile:
    """Read boxes, in the form that the content has, whatever the suffix.

    Understood are COCO results and annotations, YouTube-VIS results and annotations (json), MOT text, YOLO labels (one
    text file, or a folder of them), and a journal (.jsonl).

    Args:
        path: the file or folder.
        video_id: which video of a file for several.

    Raises:
        InputError: missing or malformed; the message names the file and the line or entry.
    """
    if path.is_dir():
        file = read_yolo_folder(path)
    elif path.suffix.lower() == ".jsonl":
        file = _journal(path)
    elif path.suffix.lower() == ".json" or read_text(path, errors="replace").lstrip()[:1] in ("[", "{"):
        file = read_json_boxes(path, read_json(path), video_id)
    else:
        file = read_lines(path)
    _check_ids(file)
    return with_positive_ids(file)


def _journal(path: Path) -> BoxFile:
    detections = [
        Detection(corners(*box), masks.frame_index, masks.name, float(score), object_id, label, (rle.width, rle.height))
        for masks in read_journal(path)
        for object_id, box, score, label, rle in zip(
            masks.ids, masks.boxes.tolist(), masks.scores, masks.labels, masks.rles, strict=True
        )
        if box[2] > box[0]
    ]
    return BoxFile(path, detections, exact=True)


def _check_ids(file: BoxFile) -> None:
    with_id = sum(detection.object_id is not None for detection in file.detections)
    without = len(file.detections) - with_id
    if with_id and without:
        raise InputError(
            f"{file.path}: {with_id} boxes have ids and {without} have none; give ids to all, or remove them from all "
            "to have the boxes matched by overlap"
        )
