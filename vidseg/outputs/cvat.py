"""CVAT for video 1.1: a track of polygons per object, and the labels for the task.

CVAT knows no tracks of masks (an import keeps the first mask alone), so a mask is one polygon, which reaches its holes
and further parts over bridges of no width.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.palette import hex_color
from vidseg.masks.polygons import Line, outline
from vidseg.outputs.layout import CVAT
from vidseg.outputs.recording import Recording


def write_cvat(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/cvat/annotations.xml``, and ``labels.json`` for the raw constructor of labels.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: a file cannot be written.
    """
    height, width = recording.hw
    target = make_folder(folder / CVAT)
    names = recording.classes.names
    labels = [{"name": name, "color": hex_color(number), "attributes": []} for number, name in enumerate(names, 1)]
    with atomic_file(target / "labels.json") as file:
        file.write(json.dumps(labels, indent=2, ensure_ascii=False).encode())
    with ExitStack() as stack:
        file = stack.enter_context(atomic_file(target / "annotations.xml"))
        spools: dict[int, IO[bytes]] = {}
        last: dict[int, tuple[int, str]] = {}  # where an object was seen last
        while (masks := (yield)) is not None:
            for object_id, rle in zip(masks.ids, masks.rles, strict=True):
                if object_id not in spools:
                    spools[object_id] = stack.enter_context(tempfile.TemporaryFile(dir=target))
                index, points = last.get(object_id, (masks.frame_index - 1, ""))
                if index < masks.frame_index - 1:
                    spools[object_id].write(_shape(index + 1, points, outside=True))
                last[object_id] = masks.frame_index, _points(outline(rle))
                spools[object_id].write(_shape(*last[object_id]))
        colors = "".join(
            f"<label><name>{escape(name)}</name><color>{hex_color(number)}</color><type>polygon</type>"
            "<attributes></attributes></label>"
            for number, name in enumerate(names, 1)
        )
        file.write(
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
            f"<name>{escape(recording.printable_video)}</name><size>{recording.end}</size><mode>interpolation</mode>"
            f"<start_frame>0</start_frame><stop_frame>{max(0, recording.end - 1)}</stop_frame><labels>{colors}</labels>"
            f"<original_size><width>{width}</width><height>{height}</height></original_size></task></meta>\n".encode()
        )
        for number, (object_id, spool) in enumerate(sorted(spools.items())):
            name = quoteattr(recording.classes.name_of(recording.labels[object_id]))
            file.write(f'<track id="{number}" label={name} source="auto" group_id="{object_id}">\n'.encode())
            index, points = last[object_id]
            if index + 1 < recording.end:
                spool.write(_shape(index + 1, points, outside=True))
            spool.seek(0)
            shutil.copyfileobj(spool, file)
            file.write(b"</track>\n")
        file.write(b"</annotations>\n")


def _points(line: Line) -> str:
    return ";".join(f"{x:g},{y:g}" for x, y in line)


def _shape(index: int, points: str, outside: bool = False) -> bytes:
    where = f'frame="{index}" outside="{int(outside)}" keyframe="1" occluded="0"'
    return f'<polygon {where} points="{points}" z_order="0"></polygon>\n'.encode()
