"""A small run to export: a journal of two objects on six frames, and what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vidseg.masks import bbox, encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import JournalSink, export, open_recording
from vidseg.outputs.layout import EXPORTED
from vidseg.types import Frame

SIZE = 64, 120
COUNT = 6


def square(index: int, object_id: int) -> np.ndarray:
    """Object 1 moves, object 2 is absent on frames 0 and 3, object 3 is never there."""
    mask = np.zeros(SIZE, np.bool_)
    if object_id == 1:
        mask[10:30, 5 * index : 5 * index + 20] = True
    elif object_id == 2 and index not in (0, 3):
        mask[40:60, 80:100] = True
        mask[45:50, 85:90] = False
    return mask


def result(index: int) -> FrameMasks:
    ids = (1, 3) if index == 0 else (2, 1, 3)
    rles = tuple(encode(square(index, i)) for i in ids)
    scores = np.array([0.5 + 0.1 * i * index / COUNT for i in ids], np.float32)
    labels = tuple({1: "dog", 2: None, 3: "cat"}[i] for i in ids)
    boxes = np.array([bbox(r) for r in rles], np.float32)
    return FrameMasks(index, index * 512, index / 25, ids, boxes, scores, labels, rles)


def frame(index: int) -> Frame:
    return Frame(index, index * 512, index / 25, np.full((*SIZE, 3), 100, np.uint8))


def exported(name: str, journal: Path, folder: Path, **settings) -> Path:
    """Export one format and give the file or folder that it made."""
    assert export(open_recording(journal, **settings), folder, [name]) == []
    return folder / EXPORTED[name]


def write_run(folder: Path, **manifest) -> Path:
    """The journal of :func:`result` in a new folder; ``manifest`` goes into a run.json."""
    folder.mkdir()
    sink = JournalSink(folder / "masks.jsonl")
    for index in range(COUNT):
        sink.write(frame(index), result(index))
    sink.close()
    if manifest:
        (folder / "run.json").write_text(json.dumps(manifest))
    return folder
