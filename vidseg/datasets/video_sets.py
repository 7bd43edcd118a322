"""Data sets of videos with masks, in the layouts they are published in: SA-V, BURST, VOST, LVOS, MOSE and the like.

A root may also be given one level too high (the folder around it) or too low (the folder of its annotations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidseg.datasets.label_folders import (
    TruthFolder,
    find_truth,
    label_folders,
    listed_sequences,
    only_one_sequence,
    same_split,
)
from vidseg.errors import InputError
from vidseg.files import data_files, data_folders
from vidseg.text import read_json, whole

Kind = Literal["folders", "SA-V", "BURST", "VOST", "LVOS"]
_SPLITS = ("val", "valid", "validation", "train", "test")
_SAV = "Annotations_6fps"
_INNER = (
    "Annotations",
    _SAV,
    "JPEGImages",
    "JPEGImages_24fps",
    "JPEGImages_10fps",
    "ImageSets",
    "annotations",
    "frames",
)
"""Folders inside a root that are easily given in its place."""
_BURST = "all_classes.json"
_FRAMES: Mapping[Kind, tuple[str, ...]] = {
    "folders": ("JPEGImages/480p", "JPEGImages"),
    "SA-V": ("JPEGImages_24fps",),
    "VOST": ("JPEGImages_10fps", "JPEGImages"),
    "LVOS": ("JPEGImages",),
}


@dataclass(frozen=True, slots=True)
class FrameRange:
    """The annotated frames of an object by LVOS: numbers from ``start`` to ``end`` and how many there are."""

    start: int
    end: int
    count: int


@dataclass(frozen=True, slots=True)
class VideoSet:
    """A data set that was found.

    ``layout`` says how; ``root`` holds its parts; ``videos`` maps each video to the folder of its masks. BURST has a
    ``table`` instead; LVOS has the ``ranges`` of the objects of every video by id, and the ``unseen`` videos, if its
    evaluator's list of them is in the root.
    """

    kind: Kind
    layout: str
    root: Path
    videos: Mapping[str, Path] = field(default_factory=dict)
    table: Path | None = None
    ranges: Mapping[str, Mapping[int, FrameRange]] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()

    def frames(self) -> Path:
        """The folder that holds a folder of frames for every video.

        Raises:
            InputError: there is none.
        """
        if self.table is not None:
            return _burst_frames(self.table)
        places = [self.root / name for name in _FRAMES[self.kind]]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise InputError(f"{self.root}: no folder of frames: expected {' or '.join(_FRAMES[self.kind])} there")
        return found


def find_video_set(root: Path, split: str = "val") -> VideoSet:
    """Find the data set at ``root``: in one of the layouts above, or in one of :func:`find_truth`.

    Raises:
        InputError: nothing found, several data sets below ``root``, or one without its parts.
        UsageError: unknown split.
    """
    if root.is_file() and root.suffix.lower() == ".json":
        return VideoSet("BURST", f"BURST, {root.name}", root.parent, table=root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of ground truth")
    _check_one_video(root)
    for place in (root, *_around(root)):
        if (found := _named_layout(place, split)) is not None:
            return found
    if (folders := _object_folders(root)) is not None:
        return VideoSet("SA-V", "SA-V: VIDEO/OBJECT/*.png", root, folders)
    if (nested := _inside(root, lambda place: _named_layout(place, split))) is not None:
        return nested
    for place in (root, *_around(root)):
        if (plain := _plain(place, split)) is not None:
            return plain
    plain = _inside(root, lambda place: _plain(place, split))
    return plain if plain is not None else _of(find_truth(root, split=split))  # which says what was expected


def _check_one_video(root: Path) -> None:
    whole_set = root.resolve().parent
    if whole_set.name == _SAV:
        raise InputError(f"{root} is one video of SA-V: name the folder of all, {whole_set.parent}")
    if data_files(root, (".png",)):
        raise only_one_sequence(root)


def _around(root: Path) -> Iterator[Path]:
    """The folders that ``root`` may be an inner part of, by its name and theirs."""
    place = root.resolve()
    for _ in range(3):
        if place.name not in (*_INNER, *_SPLITS):
            return
        place = place.parent
        yield place


def _inside(root: Path, find: Callable[[Path], VideoSet | None]) -> VideoSet | None:
    """The data set in the one folder of ``root`` that has one."""
    found = [(place, one) for place in data_folders(root) if (one := find(place)) is not None]
    if len(found) > 1:
        names = ", ".join(place.name for place, _ in found)
        raise InputError(f"{root} holds {len(found)} data sets: name one of its folders {names}")
    return found[0][1] if found else None


def _plain(root: Path, split: str) -> VideoSet | None:
    """A DAVIS root, or one with ``Annotations``, or folders of label maps."""
    try:
        return _of(find_truth(root, split=split))
    except InputError:
        if (root / "ImageSets").is_dir():
            raise
        return None


def _of(truth: TruthFolder) -> VideoSet:
    root = truth.root.resolve().parent if truth.root.name == "Annotations" else truth.root
    return VideoSet("folders", truth.layout, root, truth.folders)


def _named_layout(root: Path, split: str) -> VideoSet | None:
    if (root / _SAV).is_dir():
        return _sav(root, split)
    for place in (root / "annotations" / split, root / split, root):
        if (place / _BURST).is_file():
            file = place / _BURST
            return VideoSet("BURST", f"BURST, {file.relative_to(root)}", root, table=file)
    if (root / "Annotations").is_dir() and any((root / "ImageSets").glob("*.txt")):
        folders = listed_sequences(root / "ImageSets", root / "Annotations", split)
        return VideoSet("VOST", f"VOST root, Annotations, ImageSets/{split}.txt", root, folders)
    names = same_split(split)
    for place in (root, *(root / name for name in names)):
        if (place / "Annotations").is_dir() and (found := _lvos(place, names)) is not None:
            return found
    return None


def _sav(root: Path, split: str) -> VideoSet:
    folders = _object_folders(root / _SAV)
    if folders is None:
        raise InputError(f"{root / _SAV}: expected VIDEO/OBJECT/*.png, a folder for every object")
    lists = [root / f"{root.resolve().name}.txt", root / f"sav_{split}.txt"]
    listing = next((path for path in lists if path.is_file()), None)
    if listing is None:
        return VideoSet("SA-V", f"SA-V: {_SAV}/VIDEO/OBJECT, all videos", root, folders)
    chosen = listed_sequences(root, root / _SAV, listing.stem)
    return VideoSet("SA-V", f"SA-V: {_SAV}/VIDEO/OBJECT, videos of {listing.name}", root, chosen)


def _object_folders(root: Path) -> dict[str, Path] | None:
    """The videos of a folder VIDEO/OBJECT/*.png with numbers as names of the objects; None: it is not one."""
    videos: dict[str, Path] = {}
    for video in data_folders(root):
        objects = data_folders(video)
        if not objects or not all(one.name.isdecimal() and len(one.name) <= 4 for one in objects):
            return None
        videos[video.name] = video
    first = next(iter(videos.values()), None)
    return videos if first is not None and label_folders(first) else None


def _lvos(root: Path, names: tuple[str, ...]) -> VideoSet | None:
    """A split of LVOS v1 or v2: Annotations beside a table with the range of frames of every object."""
    tables = [path for path in data_files(root, (".json",)) if path.stem.endswith("meta")]
    tables.sort(key=lambda path: (not path.stem.startswith(names), len(path.stem)))
    for table in tables:
        if (ranges := _ranges(read_json(table), table)) is not None:
            break
    else:
        return None
    folders = label_folders(root / "Annotations")
    lacking = [name for name in ranges if name not in folders]
    if lacking:
        raise InputError(f"{root / 'Annotations'}: video '{lacking[0]}' of {table.name} has no folder of masks there")
    listing = next((p for p in (root, root.parent) if (p / "unseen_videos.txt").is_file()), None)
    unseen = (listing / "unseen_videos.txt").read_text().split() if listing else ()
    chosen = {name: folders[name] for name in sorted(ranges)}
    layout = f"LVOS: {root.name}/Annotations, {table.name}"
    return VideoSet("LVOS", layout, root, chosen, ranges=ranges, unseen=frozenset(unseen))


def _ranges(content: Any, table: Path) -> dict[str, dict[int, FrameRange]] | None:
    """{video: {object: range}} of a table of LVOS; None: it is another table (of expressions, or YouTube-VOS)."""
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        return None
    ranges: dict[str, dict[int, FrameRange]] = {}
    for name, video in videos.items():
        objects = video.get("objects") if isinstance(video, dict) else None
        for key, one in objects.items() if isinstance(objects, dict) else ():
            span = one.get("frame_range") if isinstance(one, dict) else None
            if not isinstance(span, dict):
                return None
            numbers = [whole(value) for value in (key, span.get("start"), span.get("end"), span.get("frame_nums"))]
            if None in numbers:
                raise InputError(
                    f"{table}: object '{key}' of {name}: frame_range needs the numbers start, end, frame_nums"
                )
            object_id, start, end, count = (number for number in numbers if number is not None)
            ranges.setdefault(name, {})[object_id] = FrameRange(start, end, count)
    return ranges or None


def _burst_frames(table: Path) -> Path:
    """Where BURST has its frames: ``frames/SPLIT`` or ``SPLIT`` beside the annotations, or in their place."""
    split, base = table.parent.name, table.parent
    for around in (base.parent.parent, base.parent, base):
        for place in (around / "frames" / split, around / "images" / split, around / "frames", around / split):
            if place.is_dir() and place.resolve() != base.resolve() and data_folders(place):
                return place
    raise InputError(f"{base.parent.parent}: no folder of frames: expected frames/{split}/DATASET/VIDEO/*.jpg there")
