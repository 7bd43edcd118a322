"""YouTube-VIS results: one entry per object id with one RLE, or null, per frame of the video."""

from __future__ import annotations

import json
import tempfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vidseg.atomic_files import atomic_file
from vidseg.masks.rle import area
from vidseg.outputs.categories import category_ids
from vidseg.outputs.journal import count_of_stills, read_journal

_ABSENT = -1


@dataclass(slots=True)
class _Tube:
    """One object: where its frames stand in the spool file, and the sum of its scores."""

    label: str | None = None
    places: array[int] = field(default_factory=lambda: array("q"))
    score_sum: float = 0.0
    seen: int = 0


def export_ytvis(journal: Path, folder: Path, *, video_id: int = 1) -> Path:
    """Write ``FOLDER/ytvis.json``, a list of {video_id, id, category_id, score, length, segmentations}.

    Place k is frame k, null where a frame could not be read or was not asked for. Entries of a run of stills have their
    ``file_names`` too. An object's score is the mean over the frames where it has pixels; objects that never have any
    are left out. Run-lengths go through a temporary file: memory holds eight bytes per object and frame.

    Raises:
        InputError: the journal is unreadable.
        OutputError: the file cannot be written.
    """
    path = folder / "ytvis.json"
    categories = category_ids(journal)
    with atomic_file(path) as file, tempfile.TemporaryFile(dir=folder) as spool:
        tubes, names = _collect(journal, spool)
        length = max(len(names), count_of_stills(journal))
        names.extend([None] * (length - len(names)))
        file.write(b"[")
        for number, (object_id, tube) in enumerate(sorted(tubes.items())):
            head = {
                "video_id": video_id,
                "id": object_id,
                "category_id": categories[tube.label],
                "score": round(tube.score_sum / tube.seen, 6),
                "length": length,
                **({"file_names": names} if any(names) else {}),
            }
            file.write((",\n" if number else "").encode() + json.dumps(head)[:-1].encode())
            file.write(b', "segmentations": [')
            for frame in range(length):
                place = tube.places[frame] if frame < len(tube.places) else _ABSENT
                file.write(b", " if frame else b"")
                file.write(b"null" if place == _ABSENT else _line_at(spool, place))
            file.write(b"]}")
        file.write(b"]\n")
    return path


def _collect(journal: Path, spool: IO[bytes]) -> tuple[dict[int, _Tube], list[str | None]]:
    """All objects, and the name of every frame up to the last one."""
    tubes: dict[int, _Tube] = {}
    names: list[str | None] = []
    position = 0
    for masks in read_journal(journal):
        names.extend([None] * (masks.frame_index - len(names)))
        names.append(masks.name)
        for object_id, label, score, rle in zip(masks.ids, masks.labels, masks.scores, masks.rles, strict=True):
            if not area(rle):
                continue
            tube = tubes.setdefault(object_id, _Tube())
            tube.label = tube.label or label
            tube.score_sum += float(score)
            tube.seen += 1
            tube.places.extend([_ABSENT] * (masks.frame_index - len(tube.places)))
            tube.places.append(position)
            position += spool.write(json.dumps(rle.to_coco()).encode() + b"\n")
    return tubes, names


def _line_at(spool: IO[bytes], place: int) -> bytes:
    spool.seek(place)
    return spool.readline().rstrip(b"\n")
