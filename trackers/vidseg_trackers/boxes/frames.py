"""Which frame of a video a box belongs to, by the key that its file has, and whether the boxes fit that video."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from vidseg.errors import InputError
from vidseg.types import VideoInfo
from vidseg_trackers.detections import SHARES, Box, BoxFile, Detection

_NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")
_SAME_SHAPE = 0.02
"""Ratios of width and height that differ by less are those of one shape, rounded."""
_FEW = 0.1
"""Share of boxes outside the frame up to which they are objects that left it."""


@dataclass
class Fitted:
    """Boxes by index of the frame, in its pixels; what did not fit, and what a user should know."""

    frames: dict[int, list[Detection]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fit_to_video(file: BoxFile, video: VideoInfo, first_frame: int | None) -> Fitted:
    """The boxes of a file on the frames of a video.

    ``first_frame``: the number that the file gives to the first frame; None: what its format says, or its numbers.

    Raises:
        InputError: a box for a frame that the video does not have, or for frames of another shape; two boxes of one
            object on one frame; or no box inside the frame.
    """
    fitted = Fitted(notes=list(file.notes))
    file = _of_this_folder(file, video, fitted)
    index_of = _join(file, video, first_frame, fitted)
    scaled = [_scaled(file, detection, video) for detection in file.detections]
    sizes = {d.size for d in file.detections if d.size not in (None, SHARES, (video.width, video.height))}
    for width, height in sorted(size for size in sizes if size is not None):
        fitted.notes.append(f"{file.path}: boxes for {width}x{height} are scaled to {video.width}x{video.height}")
    _check_places(file, scaled, video, fitted)
    for detection in scaled:
        fitted.frames.setdefault(index_of(detection), []).append(detection)
    for index, found in fitted.frames.items():
        ids = [d.object_id for d in found if d.object_id is not None]
        twice = next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None
        if twice is not None:
            raise InputError(f"{file.path}: object {twice} has two boxes on frame {index}")
    return fitted


def _of_this_folder(file: BoxFile, video: VideoInfo, fitted: Fitted) -> BoxFile:
    """Of a file for several folders of frames, those of the folder that is called as the video."""
    folder_of = {name: _path(name).parent for name in _names(file.detections)}
    name = PurePosixPath(video.name)
    mine = {folder for folder in folder_of.values() if folder.name in (name.name, name.stem)}
    if len(set(folder_of.values())) < 2 or len(mine) != 1:
        return file
    kept = [d for d in file.detections if d.name is None or folder_of[d.name] in mine]
    others = len(file.detections) - len(kept)
    fitted.notes.append(f"{file.path}: {others} boxes are on frames of other folders than {next(iter(mine))}")
    return replace(file, detections=kept, names=tuple(name for name in file.names if _path(name).parent in mine))


def _join(file: BoxFile, video: VideoInfo, first_frame: int | None, fitted: Fitted) -> Callable[[Detection], int]:
    """The index of the frame of a box, by name where frames have names, else by number."""
    names = _names(file.detections)
    numbered = all(d.frame is not None for d in file.detections)
    named = all(d.name is not None for d in file.detections)
    if named and video.frame_names and first_frame is None:
        places = _places(video.frame_names)
        of_name = {name: _place(places, name) for name in names}
        lost = next((name for name, place in of_name.items() if place is None), None)
        if lost is None:
            _check_distinct(file, of_name)
            return lambda d: of_name[d.name or ""] or 0
        text = f"no frame of {video.name} is called {lost} (they are called {video.frame_names[0]}, ...)"
        if not numbered:
            raise InputError(f"{file.path}: {text}")
        fitted.notes.append(f"{file.path}: {text}; the numbers of its frames are used")
    if numbered:
        used = {d.frame for d in file.detections if d.frame is not None}
        index = _of_numbers(file, used, file.numbers, video, first_frame, fitted)
        return lambda d: index[d.frame or 0]
    if not named:
        raise InputError(f"{file.path}: some boxes name the file of their frame and others do not")
    numbers = _numbers_in({*file.names, *names})
    if numbers is None:
        raise InputError(
            f"{file.path}: names as {next(iter(names))} do not say which frame of {video.name} a box is on: a number "
            "per frame in names that are alike otherwise, or a frame_index, is expected"
        )
    index = _of_numbers(file, {numbers[name] for name in names}, numbers.values(), video, first_frame, fitted)
    return lambda d: index[numbers[d.name or ""]]


def _of_numbers(
    file: BoxFile,
    used: set[int],
    known: Iterable[int],
    video: VideoInfo,
    first_frame: int | None,
    fitted: Fitted,
) -> Mapping[int, int]:
    """Index of the frame of every number ``used``; ``known``: other numbers of the file.

    Without ``first_frame`` the numbers are those in the names of the stills if they fit, where a format has no rule of
    its own; else they count from what the format says, or from what alone fits (a 0; the count of the frames).
    """
    count = video.frame_count
    numbers = used.union(known)
    first_frame = 0 if file.exact else first_frame
    first = file.first if first_frame is None else first_frame
    if first_frame is None:
        if first == 1 and 0 in numbers:
            first = 0
        elif first == 0 and 0 not in numbers and count is not None and max(numbers) == count:
            first = 1
    index = {number: number - first for number in used}
    fits = min(index.values()) >= 0 and (count is None or max(index.values()) < count)
    stills = _numbers_in(video.frame_names) if video.frame_names else None
    if first_frame is None and stills is not None and (file.first == 0 or not fits):
        of_number = {stills[name]: place for place, name in enumerate(video.frame_names)}
        if used <= of_number.keys():
            by_name = {number: of_number[number] for number in used}
            if fits and by_name != index:
                fitted.notes.append(f"{file.path}: its frames are taken as the numbers in the names of the stills")
            return by_name
    if not fits:
        wrong = max(used) if count is not None and max(index.values()) >= count else min(used)
        have = (
            "no such frame" if count is None else f"{count} frames, {first} to {count - 1 + first} as the file counts"
        )
        raise InputError(
            f"{file.path}: boxes for frame {wrong}, but {video.name} has {have}; if the file counts from another "
            f"number than {first}, set the tracker option first_frame"
        )
    if first_frame is None and (first != file.first or min(numbers) == 1 - file.first):
        fitted.notes.append(f"{file.path}: its frames are taken to count from {first} (tracker option first_frame)")
    return index


def _places(names: Sequence[str]) -> dict[str, int]:
    """Index by name and by stem, whatever the case."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places[name.casefold()] = places[_path(name).stem.casefold()] = place
    return places


def _place(places: Mapping[str, int], name: str) -> int | None:
    """Of a name with or without folders, and with this or another suffix."""
    path = _path(name)
    return places.get(path.name.casefold(), places.get(path.stem.casefold()))


def _check_distinct(file: BoxFile, of_name: Mapping[str, int | None]) -> None:
    names: dict[int | None, str] = {}
    for name, place in of_name.items():
        other = names.setdefault(place, name)
        if other != name:
            raise InputError(f"{file.path}: {other} and {name} are names of the same frame")


def _numbers_in(names: Iterable[str]) -> dict[str, int] | None:
    """The number in every name, if the names are alike otherwise and no number is there twice."""
    found = {name: _NUMBERED.match(_path(name).stem) for name in names}
    numbers = {name: int(match[2]) for name, match in found.items() if match is not None}
    alike = len({(match[1], match[3]) for match in found.values() if match is not None}) == 1
    return numbers if alike and len(set(numbers.values())) == len(found) else None


def _names(detections: Iterable[Detection]) -> dict[str, None]:
    """The different names, in their order."""
    return dict.fromkeys(d.name for d in detections if d.name is not None)


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _scaled(file: BoxFile, detection: Detection, video: VideoInfo) -> Detection:
    size = detection.size
    if size is None or size == (video.width, video.height):
        return detection
    x, y = video.width / size[0], video.height / size[1]
    if size != SHARES and abs(x / y - 1) > _SAME_SHAPE:
        raise InputError(
            f"{file.path}: boxes for {size[0]}x{size[1]}, the frames are {video.width}x{video.height}: another shape"
        )
    x1, y1, x2, y2 = detection.box
    return replace(detection, box=(x1 * x, y1 * y, x2 * x, y2 * y))


def _check_places(file: BoxFile, scaled: Sequence[Detection], video: VideoInfo, fitted: Fitted) -> None:
    """Say how many boxes lie outside the frame, and of what other size they may be."""
    unstated = [side for d in file.detections if d.size is None for side in d.box]
    if unstated and max(unstated) <= 1 and any(not side.is_integer() for side in unstated):
        raise InputError(
            f"{file.path}: all boxes are smaller than a pixel: fractions of the frame? pixels expected (or YOLO labels)"
        )
    outside = [d for d in scaled if _is_outside(d.box, video)]
    if not outside:
        return
    x1, y1, x2, y2 = outside[0].box
    what = "lie outside the frame" if x2 > x1 and y2 > y1 else "have no area or lie outside the frame"
    text = (
        f"{file.path}: {len(outside)} of {len(scaled)} boxes {what} of {video.width}x{video.height} (one is "
        f"{x1:g},{y1:g},{x2:g},{y2:g})"
    )
    right, bottom = max(d.box[2] for d in scaled), max(d.box[3] for d in scaled)
    if right > 1.1 * video.width or bottom > 1.1 * video.height:
        text += f"; they reach to {right:g},{bottom:g}: made for another size?"
    if len(outside) == len(scaled):
        raise InputError(text)
    (fitted.notes if len(outside) <= _FEW * len(scaled) else fitted.warnings).append(text)


def _is_outside(box: Box, video: VideoInfo) -> bool:
    x1, y1 = max(box[0], 0), max(box[1], 0)
    return min(box[2], video.width) <= x1 or min(box[3], video.height) <= y1
