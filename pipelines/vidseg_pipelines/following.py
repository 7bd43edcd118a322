"""Following objects that are there already through frames in either direction: for runs, the page and the server.

Nothing is searched for. Trackers see growing numbers only, so on the way back frames get mirrored ones, and results get
the right ones again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidseg.masks.boxes import mask_box
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, encode
from vidseg.masks.trust import Signals
from vidseg.types import Frame, Prompt, Rle, VideoInfo
from vidseg_pipelines.build import Models
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.segmenter import Segmenter


def follow(
    models: Models,
    info: VideoInfo,
    steps: Iterable[FrameStep],
    *,
    backward: bool = False,
    max_objects: int = 5,
    clock: StageClock | None = None,
) -> Iterator[tuple[Frame, FrameMasks]]:
    """Follow objects through frames that come in order, or ``backward``: the last one first. One result per frame.

    Args:
        models: the tracker may have been used before; nobody else uses it meanwhile.
        info: of the video.
        steps: frames, each with what is known of it: ``prompts`` of objects that are followed to the end, and objects
            ``found`` by a search. Of these at most ``max_objects`` are followed at a time: one that has been out of
            sight for long makes room for another; where there is no room, it is not followed.
        backward: the numbers of the frames fall.
        max_objects: see ``steps``.
        clock: times the stages.

    Raises:
        UsageError: a prompt that shows nothing.
    """
    segmenter = Segmenter(
        models.tracker, models.sam, models.refiner, search=False, max_objects=max_objects, batch=1, clock=clock
    )
    coming, begun, top = iter(steps), False, 0

    def turned(frame: Frame) -> Frame:
        return replace(frame, index=top - frame.index) if backward else frame

    def taken(prompt: Prompt) -> Prompt:
        return replace(prompt, frame_index=top - prompt.frame_index) if backward else prompt

    while True:
        with segmenter.clock("wait for input"):
            step = next(coming, None)
        if step is None:
            break
        if not begun:
            top = step.frame.index
            segmenter.start(replace(info, frame_count=top + 1, end=None) if backward else info)
        segmenter.finder.names |= {p.object_id: p.label for p in step.prompts if p.label is not None}
        new = {prompt.object_id for prompt in step.prompts} - segmenter.finder.followed
        found = list(step.found or ())[: max(0, segmenter.finder.room - len(new))]
        step = replace(
            step,
            frame=turned(step.frame),
            prompts=[taken(prompt) for prompt in step.prompts],
            found=[(taken(prompt), label) for prompt, label in found] or None,
        )
        for frame, masks in segmenter.advance([step]):
            yield turned(frame), replace(masks, frame_index=turned(frame).index)
        begun = True
    for frame, masks in segmenter.finish() if begun else ():
        yield turned(frame), replace(masks, frame_index=turned(frame).index)


def merged(there: FrameMasks, found: FrameMasks | None, dropped: Collection[int]) -> FrameMasks:
    """A result without the objects ``dropped``, and with those ``found`` on the same frame that it then lacks, by id.

    What stays keeps its pixels; an object that was found without any other is not visible.
    """
    kept = [row for row, object_id in enumerate(there.ids) if object_id not in dropped]
    rows = [_row(there, row) for row in kept]
    have = {row.object_id for row in rows}
    free: npt.NDArray[np.bool_] | None = None
    for row, object_id in enumerate(found.ids if found is not None else ()):
        if found is None or object_id in have:
            continue
        mask = decode(found.rles[row])
        if free is None:
            free = np.ones(mask.shape, np.bool_)
            for kept_row in kept:
                free &= ~decode(there.rles[kept_row])
        mask = mask & free
        if mask.any():
            box = np.array(mask_box(mask), np.float32)
            rows.append(replace(_row(found, row), box=box, rle=encode(mask)))
    if len(rows) == len(kept) == len(there.ids):
        return there
    rows.sort(key=lambda row: row.object_id)
    return replace(
        there,
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
