"""Following objects towards the beginning of a video, when its frames have been segmented forward.

Every object is followed from the first mask that the forward pass gave it back to the first frame. What is found waits
in a file; then the journal is replaced by one that has it, marked (:class:`vidseg.masks.trust.Signals`, ``backward``).
Objects lose nothing to those that were followed backward: where both claim a pixel, the forward mask keeps it.

Marked masks in the journal are of an earlier pass of this kind and are replaced. So the pass can be repeated, as often
as it was cut off, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vidseg.atomic_files import atomic_file
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode
from vidseg.masks.trust import Signals
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.scratch import ScratchStack
from vidseg.types import Prompt, Rle, Tracker, VideoInfo
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.build import Models
from vidseg_pipelines.following import follow, merged
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.segmenter import Segmenter


@dataclass(frozen=True)
class WayBack:
    """What a run follows towards the beginning."""

    flag: str
    """The option that asked for it."""
    first: int
    """The first frame of the run."""
    named: frozenset[int]
    """Objects of the prompts; all others were found by a search."""
    steps: int | None
    """Frames to step through at most; None: objects are searched for, and nobody knows where they will be found."""
    last: int | None
    """The last frame to segment forward; None: all."""


@dataclass(frozen=True)
class FirstMask:
    """The first mask of an object."""

    object_id: int
    label: str | None
    rle: Rle

    def on(self, frame_index: int) -> Prompt:
        """It as a prompt."""
        return Prompt(frame_index, self.object_id, mask=decode(self.rle), label=self.label)


FirstMasks = Mapping[int, Sequence[FirstMask]]
"""By frame."""


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
        raise UsageError(
            f"{flag} ends at the last prompt, and there is none: give --box, --point or --mask; --direction both"
            " follows objects back that are found automatically"
        )
    searches = not prompts or config.detector or config.detect_every or config.first_found_id
    starts: dict[int, int] = {}
    for prompt in prompts:
        starts[prompt.object_id] = min(prompt.frame_index, starts.get(prompt.object_id, prompt.frame_index))
    steps = None if searches else max(starts.values(), default=first - 1) - first + 1
    last = max(p.frame_index for p in prompts) if config.direction == "backward" else None
    return WayBack(flag, first, frozenset(starts), steps, last)


def first_masks(folder: RunFolder, way: WayBack) -> tuple[FirstMasks, FrameMasks | None, list[str]]:
    """Where to go back from, the last result of the journal, and what a user should know.

    Raises:
        InputError: the journal is damaged.
    """
    starts, seen, last = dict[int, list[FirstMask]](), set[int](), None
    for masks in folder.results():
        last = masks
        before = _from_behind(masks)
        for object_id, label, rle in zip(masks.ids, masks.labels, masks.rles, strict=True):
            if object_id not in seen and object_id not in before:
                seen.add(object_id)
                if masks.frame_index > way.first:
                    starts.setdefault(masks.frame_index, []).append(FirstMask(object_id, label, rle))
    notes = [f"{way.flag}: object {i} has no mask to go back from" for i in sorted(way.named - seen)]
    if not starts:
        notes.append(f"{way.flag}: no object appears after frame {way.first}, so there was nothing to go back to")
    return starts, last, notes


def follow_backward(
    folder: RunFolder,
    video: RandomAccess,
    forward: Segmenter,
    info: VideoInfo,
    way: WayBack,
    starts: FirstMasks,
    advance: Callable[[Sequence[FrameMasks]], None],
) -> None:
    """Follow objects to the first frame, with the models of ``forward``; add what is found to the journal.

    Memory does not depend on the length of the video: frames and results wait in files without names in the folder.

    Raises:
        InputError: a frame cannot be read. OutputError: the disk is full or the like; the journal is as it was.
    """
    models = Models(forward.tracker, forward.sam, forward.refiner)
    steps = _steps(folder, video, way, starts)
    with ScratchStack(folder.path) as waiting:
        for _, masks in follow(
            models, info, steps, backward=True, max_objects=forward.finder.max_objects, clock=forward.clock
        ):
            waiting.push(journal_line(_marked(masks)))
            advance([masks])
        back = _next(waiting)
        with atomic_file(folder.journal) as file:
            for masks in folder.results():
                while back is not None and back.frame_index < masks.frame_index:
                    back = _next(waiting)
                there = back is not None and back.frame_index == masks.frame_index
                file.write(journal_line(merged(masks, back if there else None, _from_behind(masks))))


def _steps(folder: RunFolder, video: RandomAccess, way: WayBack, starts: FirstMasks) -> Iterator[FrameStep]:
    """Frames from the last first mask on, each with the objects that are followed from there."""
    for frame in video.backward(max(starts, default=-1), way.first, scratch=folder.path):
        begin = [(mask.object_id in way.named, mask.on(frame.index)) for mask in starts.get(frame.index, ())]
        yield FrameStep(
            frame,
            [prompt for named, prompt in begin if named],
            found=[(prompt, prompt.label) for named, prompt in begin if not named],
        )


def _next(waiting: ScratchStack) -> FrameMasks | None:
    line = waiting.pop()
    return None if line is None else parse_line(line.tobytes())


def _marked(masks: FrameMasks) -> FrameMasks:
    """A result of which everything was followed backward."""
    return replace(masks, signals=tuple(replace(one or Signals(), backward=True) for one in masks.signals))


def _from_behind(masks: FrameMasks) -> set[int]:
    """Objects of a result that were followed backward."""
    return {i for i, signals in zip(masks.ids, masks.signals, strict=True) if signals is not None and signals.backward}
