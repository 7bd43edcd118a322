"""Following prompts towards the beginning of a video, when its frames have been segmented forward.

Every object is followed from its mask on the frame of its first prompt, as the forward pass gave it, back to the first
frame. What is found waits in a file; then the journal is replaced by one that has it. Objects lose nothing to those
that were followed backward: where both claim a pixel, the forward mask keeps it.

What is in the journal of frames before an object's first prompt can only come from an earlier pass of this kind and is
replaced. So the pass can be repeated, as often as it was cut off, with the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from vidseg.atomic_files import atomic_file
from vidseg.config import RunConfig
from vidseg.errors import UsageError, output_error
from vidseg.heap import trim_heap
from vidseg.masks.boxes import mask_box
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, encode
from vidseg.masks.trust import Signals
from vidseg.names import part_of
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.types import Prompt, Rle, Tracker, VideoInfo
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.segmenter import Segmenter

_TRIM_EVERY = 25
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class WayBack:
    """What a run follows towards the beginning."""

    first: int
    """The first frame of the run."""
    prompted: Mapping[int, int]
    """Object id to the frame of its first prompt, where that comes after the first frame."""
    last: int | None
    """The last frame to segment forward; None: all."""
    notes: Sequence[str] = ()

    @property
    def steps(self) -> int:
        """Frames to step through, at most."""
        return max(self.prompted.values(), default=self.first - 1) - self.first + 1


def way_back(config: RunConfig, tracker: Tracker, prompts: Sequence[Prompt]) -> WayBack | None:
    """What a run follows towards the beginning; None: it goes forward only.

    Raises:
        UsageError: a tracker that cannot start from masks, or no prompt to start from.
    """
    if config.direction == "forward":
        return None
    flag, first = f"--direction {config.direction}", config.frame_range[0]
    if tracker.finds_objects or tracker.lookahead:
        raise UsageError(
            f"{flag}: --tracker {config.tracker} cannot be started from the mask of an object; use one that follows"
            " prompts, such as xmem"
        )
    if config.direction == "backward" and not prompts:
        raise UsageError(f"{flag} needs an object to go back from: give --box, --point or --mask")
    prompted: dict[int, int] = {}
    for prompt in prompts:
        prompted[prompt.object_id] = min(prompt.frame_index, prompted.get(prompt.object_id, prompt.frame_index))
    found = _found(config, prompted)
    later = {i: frame for i, frame in prompted.items() if frame > first and i not in found}
    notes = [f"{flag}: objects that are found automatically are not followed backward"] if found or not prompts else []
    if prompts and not later:
        notes.append(f"{flag}: no object is first prompted after frame {first}, so there was nothing to go back to")
    last = max(p.frame_index for p in prompts) if config.direction == "backward" else None
    return WayBack(first, later, last, notes)


def _found(config: RunConfig, ids: Mapping[int, int]) -> set[int]:
    """Prompted objects that the run may have found before: their prompts are corrections."""
    start = config.first_found_id
    searches = config.detector or config.detect_every or not any(i < start for i in ids)
    return {i for i in ids if i >= start} if start and searches else set()


def masks_to_follow(folder: RunFolder, way: WayBack) -> tuple[list[Prompt], int, list[str]]:
    """The forward masks on the frames of first prompts, the frame after the last one, and which objects have none.

    Raises:
        InputError: the journal is damaged.
    """
    found, end = list[Prompt](), way.first
    for masks in folder.results():
        end = masks.frame_index + 1
        for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True):
            if way.prompted.get(object_id) == masks.frame_index:
                found.append(Prompt(masks.frame_index, object_id, mask=decode(rle), label=label))
    missing = sorted(way.prompted.keys() - {prompt.object_id for prompt in found})
    notes = [
        f"object {i} has no mask on frame {way.prompted[i]}, of its first prompt: it was not followed backward"
        for i in missing
        if way.prompted[i] < end
    ]
    return found, end, notes


def follow_backward(
    folder: RunFolder,
    video: RandomAccess,
    forward: Segmenter,
    info: VideoInfo,
    way: WayBack,
    prompts: Sequence[Prompt],
    advance: Callable[[Sequence[FrameMasks]], None],
) -> None:
    """Follow the masks of ``prompts`` to the first frame, with the networks of ``forward``; add them to the journal.

    Memory does not depend on the length of the video: ``video`` holds few frames, results are in a file meanwhile.

    Raises:
        InputError: a frame cannot be read. OutputError: results cannot be written; the journal is as it was.
    """
    with _waiting(folder.journal) as waiting:
        for masks in _followed(video, forward, info, way.first, prompts):
            waiting.push(masks)
            advance([masks])
        back = waiting.pop()
        with atomic_file(folder.journal) as file:
            for masks in folder.results():
                while back is not None and back.frame_index < masks.frame_index:
                    back = waiting.pop()
                there = back is not None and back.frame_index == masks.frame_index
                file.write(journal_line(merged(masks, back if there else None, way.prompted)))


def _followed(
    video: RandomAccess, forward: Segmenter, info: VideoInfo, first: int, prompts: Sequence[Prompt]
) -> Iterator[FrameMasks]:
    """Results from the last of the prompts to the frame ``first``."""
    top = max((prompt.frame_index for prompt in prompts), default=first - 1)
    segmenter = Segmenter(
        forward.tracker,
        forward.sam,
        Refiner(forward.sam, forward.refiner.options),
        prompts=[replace(p, frame_index=top - p.frame_index) for p in prompts],  # trackers see growing numbers only
        search=False,
        batch=1,
        clock=forward.clock,
    )
    segmenter.start(replace(info, frame_count=top - first + 1, end=None))
    for index in range(top, first - 1, -1):
        with forward.clock("wait for input"):
            frame = video.read(index)
        for _, masks in segmenter.step([replace(frame, index=top - index)]):
            yield replace(masks, frame_index=index)
        if index % _TRIM_EVERY == 0:
            trim_heap()


def merged(forward: FrameMasks, backward: FrameMasks | None, prompted: Mapping[int, int]) -> FrameMasks:
    """A result with the objects of ``backward`` that are first ``prompted`` (id to frame) later, by id.

    Pixels that a forward mask has stay with it; an object without any other pixel is not visible.
    """
    index = forward.frame_index
    kept = [row for row, object_id in enumerate(forward.ids) if index >= prompted.get(object_id, index)]
    rows = [_row(forward, row) for row in kept]
    free: npt.NDArray[np.bool_] | None = None
    for row, object_id in enumerate(backward.ids if backward is not None else ()):
        if backward is None or index >= prompted.get(object_id, index):
            continue
        mask = decode(backward.rles[row])
        if free is None:
            free = np.ones(mask.shape, np.bool_)
            for kept_row in kept:
                free &= ~decode(forward.rles[kept_row])
        mask = mask & free
        if mask.any():
            box = np.array(mask_box(mask), np.float32)
            rows.append(replace(_row(backward, row), box=box, rle=encode(mask)))
    if len(rows) == len(kept) == len(forward.ids):
        return forward
    rows.sort(key=lambda row: row.object_id)
    return replace(
        forward,
        ids=tuple(row.object_id for row in rows),
        boxes=np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row.score for row in rows], np.float32),
        labels=tuple(row.label for row in rows),
        rles=tuple(row.rle for row in rows),
        signals=tuple(row.signals for row in rows),
    )


@dataclass(frozen=True)
class _Row:
    """An object in a result."""

    object_id: int
    box: npt.NDArray[np.float32]
    score: np.float32
    label: str | None
    rle: Rle
    signals: Signals | None


def _row(masks: FrameMasks, row: int) -> _Row:
    scores, labels = masks.scores, masks.labels
    return _Row(masks.ids[row], masks.boxes[row], scores[row], labels[row], masks.rles[row], masks.signals[row])


class _Results:
    """Results in a file, the last one first out."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file, self._end = path, file, 0

    def push(self, masks: FrameMasks) -> None:
        """Add a result (OutputError: the disk is full or the like)."""
        line = journal_line(masks)
        try:
            self._file.write(line + _LENGTH.pack(len(line)))
            self._end = self._file.tell()
        except OSError as error:
            raise output_error(self._path, error) from error

    def pop(self) -> FrameMasks | None:
        """Take the last result, or None where there is none (OutputError: it cannot be read)."""
        if not self._end:
            return None
        try:
            self._file.seek(self._end - _LENGTH.size)
            (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            self._end -= _LENGTH.size + length
            self._file.seek(self._end)
            return parse_line(self._file.read(length))
        except OSError as error:
            raise output_error(self._path, error) from error


@contextmanager
def _waiting(beside: Path) -> Iterator[_Results]:
    """A file beside another one, with a name of files that are removed when a run goes on; removed at the end."""
    path = part_of(beside)
    try:
        file = path.open("x+b")
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield _Results(path, file)
    finally:
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            path.unlink(missing_ok=True)
