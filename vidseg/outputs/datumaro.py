"""Datumaro: a data set of masks in its own format, which its projects import."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path, PurePath
from typing import Any

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import DATUMARO
from vidseg.outputs.recording import Recording

DATUMARO_PICTURES = f"{DATUMARO}/images/default"
"""Where the images are: those of the subset "default"."""


def write_datumaro(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/datumaro/annotations/default.json``.

    An item is a frame, with its index as the attribute ``frame``; an annotation is a mask (run-lengths) with the id of
    the object as the attribute ``track_id``.

    Raises:
        InputError: the size of the frames is not known.
        OutputError: the file cannot be written.
    """
    height, width = recording.hw
    names = recording.classes.names
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    head = {
        "dm_format_version": "1.0",
        "media_type": 2,  # images
        "infos": {"video": recording.video},
        "categories": {"label": {"label_groups": [], "labels": labels, "attributes": []}},
    }
    with atomic_file(make_folder(folder / DATUMARO / "annotations") / "default.json") as file:
        file.write(json.dumps(head)[:-1].encode() + b',\n"items": [')
        separator = b""
        while (masks := (yield)) is not None:
            picture = recording.picture(masks)
            annotations: list[dict[str, Any]] = [
                {
                    "id": object_id,
                    "type": "mask",
                    "attributes": {"track_id": object_id, "score": round(score, 6)},
                    "group": object_id,
                    "label_id": recording.classes.rank_of(label) - 1,
                    "z_order": 0,
                    "rle": rle.to_coco(),
                }
                for object_id, score, label, rle in zip(
                    masks.ids, masks.scores.tolist(), masks.labels, masks.rles, strict=True
                )
            ]
            item = {
                "id": PurePath(picture).stem,
                "annotations": annotations,
                "attr": {"frame": masks.frame_index},
                "image": {"path": picture, "size": [height, width]},
            }
            file.write(separator + json.dumps(item).encode())
            separator = b",\n"
        file.write(b"]}\n")
