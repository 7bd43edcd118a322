"""YouTube-VIS results: one entry per object id with one RLE, or null, per frame of the video."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vidseg.atomic_files import atomic_file
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import YTVIS
from vidseg.outputs.recording import Recording

_ABSENT = -1


@dataclass(slots=True)
class _Tube:
    """One object: where its frames stand in the spool file, and the sum of its scores."""

    places: array[int] = field(default_factory=lambda: array("q"))
    score_sum: float = 0.0
    seen: int = 0


def write_ytvis(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/ytvis.json``: {video_id, id, category_id, category_name, score, length, segmentations} per object.

    Place k is frame k, null where a frame could not be read or was not asked for. Entries of a run of stills have their
    ``file_names`` too. An object's score is the mean over the frames where it has pixels. Run-lengths go through a
    temporary file: memory holds eight bytes per object and frame.

    Raises:
        OutputError: the file cannot be written.
    """
    tubes: dict[int, _Tube] = {}
    names: list[str | None] = []
    with atomic_file(folder / YTVIS) as file, tempfile.TemporaryFile(dir=folder) as spool:
        position = 0
        while (masks := (yield)) is not None:
            names.extend([None] * (masks.frame_index - len(names)))
            names.append(masks.name)
            for object_id, score, rle in zip(masks.ids, masks.scores, masks.rles, strict=True):
                tube = tubes.setdefault(object_id, _Tube())
                tube.score_sum += float(score)
                tube.seen += 1
                tube.places.extend([_ABSENT] * (masks.frame_index - len(tube.places)))
                tube.places.append(position)
                position += spool.write(json.dumps(rle.to_coco()).encode() + b"\n")
        names.extend([None] * (recording.end - len(names)))
        file.write(b"[")
        for number, (object_id, tube) in enumerate(sorted(tubes.items())):
            label = recording.labels[object_id]
            head = {
                "video_id": recording.video_id,
                "id": object_id,
                "category_id": recording.classes.id_of(label),
                "category_name": recording.classes.name_of(label),
                "score": round(tube.score_sum / tube.seen, 6),
                "length": recording.end,
                **({"file_names": names} if any(names) else {}),
            }
            file.write((",\n" if number else "").encode() + json.dumps(head)[:-1].encode())
            file.write(b', "segmentations": [')
            for frame in range(recording.end):
                place = tube.places[frame] if frame < len(tube.places) else _ABSENT
                file.write(b", " if frame else b"")
                file.write(b"null" if place == _ABSENT else _line_at(spool, place))
            file.write(b"]}")
        file.write(b"]\n")


def _line_at(spool: IO[bytes], place: int) -> bytes:
    spool.seek(place)
    return spool.readline().rstrip(b"\n")
