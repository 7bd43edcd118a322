"""Boxes in json: COCO results and annotations, YouTube-VIS results and annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import InputError
from vidseg.masks.rle import bbox, from_coco
from vidseg.text import whole
from vidseg_trackers.detections import Box, BoxFile, Detection, corners, frame_number, id_of, score_of, xywh

_Row = Mapping[str, Any]
_TRACK_KEYS = ("trackid", "trackerid", "objectid", "objid", "instanceid")
_FRAME_KEYS = ("frameindex", "frameid", "framenumber", "frame")


@dataclass(frozen=True, slots=True)
class _Image:
    """What a table of images or videos says of one of its rows."""

    frame: int | None
    name: str | None
    size: tuple[int, int] | None


def read_json_boxes(path: Path, data: Any, video_id: int | None) -> BoxFile:
    """Boxes of a json document.

    Args:
        path: its file, for messages.
        data: its content.
        video_id: which video, where there are several.

    Raises:
        InputError: not such a document; the message names the entry.
    """
    entries = data.get("annotations", data.get("detections")) if isinstance(data, dict) else data
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: a list of results, or an object with "annotations", expected')
    document: _Row = data if isinstance(data, dict) else {}
    try:
        names = {_key(c["id"]): str(c["name"]) for c in document.get("categories") or [] if "id" in c and "name" in c}
        images = {_key(image.get("id")): image for image in document.get("images") or []}
        videos = {_key(video.get("id")): video for video in document.get("videos") or []}
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: 'categories', 'images' and 'videos' must be lists of objects with an 'id'"
        ) from error
    if any("segmentations" in entry or "bboxes" in entry for entry in entries):
        return _ytvis(path, entries, names, videos, video_id)
    return _coco(path, entries, names, images, video_id)


def _coco(
    path: Path, entries: Sequence[_Row], names: Mapping[Any, str], rows: Mapping[Any, _Row], video_id: int | None
) -> BoxFile:
    kept: Mapping[Any, _Row] = rows
    if video_id is not None or not all(row.get("file_name") for row in rows.values()):  # else names tell them apart
        chosen = _video_of({_key(row.get("video_id")) for row in rows.values()}, video_id, path)
        kept = {key: row for key, row in rows.items() if _key(row.get("video_id")) == chosen}
    try:
        images = {key: _image(row) for key, row in kept.items()}
    except ValueError as error:
        raise InputError(f"{path}: images: {error}") from error
    by_name = {image.name: image for image in images.values() if image.name is not None}
    detections = []
    for place, entry in enumerate(entries):
        try:
            key = _key(entry["image_id"])
            if key in rows and key not in kept:
                continue  # of another video
            image = images.get(key) or by_name.get(key)
            if rows and image is None:
                raise ValueError(f"image_id {entry['image_id']!r} is not in the images list")
            image = image or _lone_image(entry)
            outline = entry.get("segmentation")
            detections.append(
                Detection(
                    _box(entry.get("bbox"), outline),
                    image.frame,
                    image.name,
                    score_of(entry.get("score")),
                    id_of(_first_of(entry, _TRACK_KEYS)),
                    _label(entry, names),
                    image.size or _size_of_mask(outline),
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}, entry {place}: {_reason(error)}") from error
    numbers = tuple(image.frame for image in images.values() if image.frame is not None)
    return BoxFile(path, detections, names=tuple(by_name), numbers=numbers)


def _image(row: _Row) -> _Image:
    """Of a row of ``images``: its file name, or the number of its frame, or for want of both its id."""
    name, frame = row.get("file_name"), _first_of(row, _FRAME_KEYS)
    name = name if isinstance(name, str) and name else None
    if frame is None and name is None:
        frame = row.get("id")
    return _Image(None if frame is None else frame_number(frame), name, _size(row))


def _lone_image(entry: _Row) -> _Image:
    """Of an entry of a list of results: its ``file_name``, or ``image_id``, a number or the name of a file."""
    key, name = entry["image_id"], entry.get("file_name")
    if isinstance(name, str) and name:
        return _Image(None, name, None)
    named = isinstance(key, str)
    return _Image(None if named and whole(key) is None else frame_number(key), key if named else None, None)


def _ytvis(
    path: Path, entries: Sequence[_Row], names: Mapping[Any, str], videos: Mapping[Any, _Row], video_id: int | None
) -> BoxFile:
    """Tubes: lists with a place for every frame. Where the frames have names, these say which they are."""
    chosen = _video_of({_key(entry.get("video_id")) for entry in entries}, video_id, path)
    video = videos.get(chosen, {})
    have_ids = all("id" in entry for entry in entries)
    detections: list[Detection] = []
    files: dict[str, None] = {}
    for place, entry in enumerate(entries):
        if _key(entry.get("video_id")) != chosen:
            continue
        try:
            object_id, score = id_of(entry["id"]) if have_ids else place + 1, score_of(entry.get("score"))
            stated = entry.get("file_names", video.get("file_names"))
            of_frame = stated if isinstance(stated, list) else None
            files |= dict.fromkeys(of_frame or ())
            for k, box, size in _tube(entry):
                if of_frame is not None and k >= len(of_frame):
                    raise ValueError(f"a box at place {k}, but there are only {len(of_frame)} file names")
                frame, name = (k, None) if of_frame is None else (None, str(of_frame[k]))
                stated_size = _size(entry) or _size(video) or size
                detections.append(Detection(box, frame, name, score, object_id, _label(entry, names), stated_size))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}, entry {place}: {_reason(error)}") from error
    return BoxFile(path, detections, exact=not files, names=tuple(map(str, files)))


def _tube(entry: _Row) -> Iterator[tuple[int, Box, tuple[int, int] | None]]:
    """(place, box, size of the mask) where the object is."""
    boxes, outlines = entry.get("bboxes"), entry.get("segmentations")
    for k, value in enumerate(boxes if boxes is not None else entry["segmentations"]):
        if not value:
            continue
        outline = outlines[k] if isinstance(outlines, list) and k < len(outlines) else None
        box = xywh(value) if boxes is not None else _box(None, value)
        if box[2] > box[0] and box[3] > box[1]:
            yield k, box, _size_of_mask(outline)


def _video_of(videos: set[Any], video_id: int | None, path: Path) -> Any:
    """The one video of a file, or the one that is asked for."""
    if video_id is not None and videos - {None}:
        if video_id not in videos:
            raise InputError(f"{path}: no video {video_id}; it holds {', '.join(sorted(map(str, videos)))[:80]}")
        return video_id
    if len(videos) > 1:
        raise InputError(f"{path}: holds {len(videos)} videos; choose one with the tracker option video_id")
    return next(iter(videos), None)


def _box(box: Any, outline: Any) -> Box:
    """Left, top, width, height; without them the tight box of a mask or of polygons."""
    if box:
        return xywh(box)
    if isinstance(outline, list) and outline:
        points = [float(v) for polygon in outline for v in polygon]
        return corners(min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
    if not outline:
        raise ValueError("no 'bbox' and no 'segmentation'")
    return corners(*bbox(from_coco(outline)).tolist())


def _size(row: _Row) -> tuple[int, int] | None:
    width, height = whole(row.get("width")), whole(row.get("height"))
    return (width, height) if width and height and width > 0 and height > 0 else None


def _size_of_mask(outline: Any) -> tuple[int, int] | None:
    size = outline.get("size") if isinstance(outline, Mapping) else None
    return _size({"height": size[0], "width": size[1]}) if isinstance(size, list) and len(size) == 2 else None


def _label(entry: _Row, names: Mapping[Any, str]) -> str | None:
    category = _key(entry.get("category_id"))
    return None if category is None else names.get(category, str(category))


def _first_of(row: _Row, spellings: Sequence[str]) -> Any:
    """The value of the first key that is there in any spelling, in the row or in its ``attributes``."""
    inner = row.get("attributes")
    for source in (row, inner) if isinstance(inner, Mapping) else (row,):
        values = {re.sub(r"[^a-z]", "", str(key).lower()): value for key, value in source.items()}
        for key in spellings:
            if values.get(key) is not None:
                return values[key]
    return None


def _key(value: Any) -> Any:
    """An id that is the same for 7, 7.0 and "7".

    Raises:
        TypeError: nothing that can be an id.
    """
    found = whole(value)
    if found is None:
        hash(value)
    return value if found is None else found


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
