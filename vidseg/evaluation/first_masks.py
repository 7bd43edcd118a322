"""Which masks a method is given: every object's first one, as semi-supervised evaluation has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidseg.datasets.burst import BurstVideo, read_burst
from vidseg.datasets.label_folders import frame_files
from vidseg.datasets.video_sets import FrameRange, VideoSet
from vidseg.evaluation.label_maps import read_label_map
from vidseg.evaluation.vos_tracks import VOID
from vidseg.files import data_folders
from vidseg.masks.rle import decode


@dataclass(frozen=True, slots=True)
class FirstMask:
    """The object ``name`` has its first mask, bool (H, W), on the frame called ``frame``."""

    name: str
    frame: str
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GivenMasks:
    """A video: names of its annotated frames, and ``first()``, which reads the first mask of every object."""

    annotated: frozenset[str]
    first: Callable[[], list[FirstMask]]


def given_masks(found: VideoSet) -> Mapping[str, GivenMasks]:
    """The videos of a data set.

    Raises:
        InputError: files that are missing or cannot be read.
    """
    if found.table is not None:
        videos = read_burst(found.table)
        return {one.name: GivenMasks(frozenset(one.frames), partial(_burst, one)) for one in videos}
    given = {}
    for name, folder in found.videos.items():
        if found.kind == "SA-V":
            objects = {one.name: frame_files(one) for one in data_folders(folder)}
            annotated = frozenset(path.stem for files in objects.values() for path in files)
            given[name] = GivenMasks(annotated, partial(_object_folders, objects))
            continue
        files = frame_files(folder)
        annotated = frozenset(path.stem for path in files)
        ranges = found.ranges[name] if found.kind == "LVOS" else None
        of_first_frame = found.kind == "VOST"  # where 255 is no object
        read = partial(_label_maps, files[:1] if of_first_frame else files, ranges, of_first_frame)
        given[name] = GivenMasks(annotated, read)
    return given


def _object_folders(objects: Mapping[str, list[Path]]) -> list[FirstMask]:
    firsts = []
    for name, files in objects.items():
        for path in files:
            if (mask := read_label_map(path) != 0).any():
                firsts.append(FirstMask(name, path.stem, np.asarray(mask)))
                break
    return firsts


def _label_maps(
    files: list[Path], ranges: Mapping[int, FrameRange] | None = None, has_void: bool = False
) -> list[FirstMask]:
    """With ``ranges``, objects are those of the table, from the start of their range on."""
    firsts: dict[int, FirstMask] = {}
    for path in files:
        if ranges is not None and len(firsts) == len(ranges):
            break
        labels = read_label_map(path)
        for k in np.unique(labels).tolist():
            begins = ranges is None or (k in ranges and int(path.stem) >= ranges[k].start)
            if k and k not in firsts and begins and not (has_void and k == VOID):
                firsts[k] = FirstMask(str(k), path.stem, np.asarray(labels == k))
    return list(firsts.values())


def _burst(video: BurstVideo) -> list[FirstMask]:
    firsts = []
    for track, masks in video.tracks.items():
        frame = next(frame for frame in video.frames if frame in masks)
        firsts.append(FirstMask(str(track), frame, decode(masks[frame]).astype(bool)))
    return firsts
