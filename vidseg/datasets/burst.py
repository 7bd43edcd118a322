"""Annotation files of BURST (Athar et al., WACV 2023), and results in the same form: run-lengths of tracks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vidseg.errors import InputError
from vidseg.masks.rle import from_coco
from vidseg.text import read_json, whole
from vidseg.types import Rle


@dataclass(frozen=True, slots=True)
class BurstVideo:
    """``name`` is DATASET/VIDEO; ``frames`` the annotated ones by name without suffix; ``tracks`` id -> frame -> mask.

    ``hw``: size of the frames. A track has no mask on the frames where it is not seen.
    """

    name: str
    hw: tuple[int, int]
    frames: tuple[str, ...]
    tracks: Mapping[int, Mapping[str, Rle]]


def read_burst(path: Path) -> list[BurstVideo]:
    """The videos of an annotation or result file.

    Raises:
        InputError: it cannot be read, or is not of this form.
    """
    content = read_json(path)
    rows = content.get("sequences") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a file of BURST: expected an object with the list 'sequences'")
    videos = [_video(row, f"{path}: sequences[{place}]") for place, row in enumerate(rows)]
    names = [video.name for video in videos]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: video '{next(n for n in names if names.count(n) > 1)}' is there more than once")
    return videos


def _video(row: Any, where: str) -> BurstVideo:
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object")
    height, width = whole(row.get("height")), whole(row.get("width"))
    names, masks = row.get("annotated_image_paths"), row.get("segmentations")
    if not height or not width or not isinstance(names, list) or not isinstance(masks, list):
        raise InputError(f"{where}: expected width, height, and the lists annotated_image_paths and segmentations")
    if len(names) != len(masks):
        raise InputError(f"{where}: {len(masks)} segmentations for {len(names)} annotated_image_paths")
    frames = tuple(PurePosixPath(str(name)).stem for name in names)
    tracks: dict[int, dict[str, Rle]] = {}
    for frame, found in zip(frames, masks, strict=True):
        if not isinstance(found, dict):
            raise InputError(f"{where}: segmentations of {frame}: expected an object of tracks")
        for key, one in found.items():
            track = whole(key)
            if track is None or not isinstance(one, dict):
                raise InputError(f"{where}: segmentations of {frame}: track '{key}' must be a number with an 'rle'")
            try:
                rle = from_coco({"size": [height, width], "counts": one.get("rle")})
            except InputError as error:
                raise InputError(f"{where}: track {track} on {frame}: {error}") from None
            tracks.setdefault(track, {})[frame] = rle
    name = "/".join(str(row[key]) for key in ("dataset", "seq_name") if row.get(key))
    if not name:
        raise InputError(f"{where}: expected dataset and seq_name")
    return BurstVideo(name, (height, width), frames, dict(sorted(tracks.items())))
