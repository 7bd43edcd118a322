"""Frames one by one, the last of which is computed again whenever the user says something new of it.

The state before the last frame is kept. What is said of the frame later is computed from there: the result is the one
that all prompts would have given at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.overlap import disjoint_masks, in_front
from vidseg.types import Frame, Prompt, RemovesObjects, State, VideoInfo
from vidseg_pipelines.drawing import draw_prompts
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.segmenter import Segmenter

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """The frame just seen: how its masks were made, and the state before it."""

    step: FrameStep
    masks: FrameMasks
    before: State
    known: frozenset[int]
    """Objects that the state before it has."""

    @property
    def by_id(self) -> dict[int, Mask]:
        """Object id to mask (H, W)."""
        return dict(zip(self.masks.ids, self.masks.masks, strict=True))


class InteractiveSegmenter:
    """A causal segmenter whose last frame takes prompts after it was seen. A call that fails changes nothing."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Around a segmenter that has not started."""
        self.segmenter = segmenter
        self.shown: Shown | None = None
        """The frame just seen; None: none yet, or none since a state was loaded."""
        self.next_index = 0

    @property
    def followed(self) -> set[int]:
        """Ids of the objects that are followed, visible or not."""
        return self.segmenter.finder.followed

    @property
    def next_id(self) -> int:
        """An id that no object has had."""
        return self.segmenter.finder.next_id

    @property
    def names(self) -> dict[int, str]:
        """What the user calls objects, by id."""
        return self.segmenter.finder.names

    @property
    def draws_prompts(self) -> bool:
        """Whether prompts are drawn here, before the tracker gets them."""
        return self.segmenter.tracker.wants_masks

    def step(self, frame: Frame) -> FrameMasks:
        """The masks of the next frame."""
        before, known, step = self.state(), frozenset(self.followed), FrameStep(frame)
        with self._undone_by_errors(before):
            ((_, masks),) = self.segmenter.advance([step])
        self.shown, self.next_index = Shown(step, masks, before, known), frame.index + 1
        return masks

    def prompt(self, shown: Shown, prompt: Prompt) -> None:
        """Say something of an object on the frame just seen, which fits the frame."""
        self.shown = self._again(shown, self._with(shown, prompt))

    def preview(self, shown: Shown, prompt: Prompt) -> Mask:
        """The mask (H, W) that the object would have with a prompt."""
        now, names = self.state(), dict(self.names)
        masks = self._again(shown, self._with(shown, prompt)).by_id
        self._restore(now, names)
        return masks.get(prompt.object_id, np.zeros(shown.step.frame.hw, np.bool_))

    def sketch(self, shown: Shown, prompt: Prompt, drafts: Sequence[Prompt] = ()) -> Mask:
        """As :meth:`preview`, drawn on the whole frame alone: sooner, and coarser.

        ``drafts`` are masks that are to be given before it. Changes nothing, and may be called while another thread is
        in :meth:`prompt`. A tracker that draws prompts itself is asked for the preview.

        Raises:
            UsageError: nothing is found at the prompt, or another object has all of it.
        """
        if not self.draws_prompts:
            return self.preview(shown, prompt)
        masks = shown.by_id
        for draft in drafts:
            if draft.mask is not None:
                masks = in_front(masks, draft.object_id, draft.mask)
        features, image = self.segmenter.features(shown.step), shown.step.frame.rgb
        (mask,) = draw_prompts(self.segmenter.sam, image, features, [prompt], "never", masks)
        given = {p.object_id: p.mask for p in (*shown.step.prompts, *drafts) if p.mask is not None}
        disjoint_masks({**given, prompt.object_id: mask}, prompt.frame_index)
        return mask

    def remove(self, shown: Shown, object_id: int) -> None:
        """Forget an object, from the frame just seen on.

        Raises:
            UsageError: the tracker knows it from earlier frames and cannot let go of it.
        """
        tracker, step = self.segmenter.tracker, shown.step
        if object_id in shown.known:
            if not (isinstance(tracker, RemovesObjects) and tracker.can_remove):
                raise UsageError("the tracker, with these settings, cannot let go of an object")
            step = replace(step, removed=(*step.removed, object_id))
        prompts = [p for p in step.prompts if p.object_id != object_id]
        found = [one for one in step.found or () if one[0].object_id != object_id]
        self.shown = self._again(shown, replace(step, prompts=prompts, found=found))

    def state(self) -> State:
        """The state after the frames so far, which later ones do not change.

        Raises:
            UsageError: the tracker holds frames back.
        """
        state = self.segmenter.state_dict()
        if state is None:
            raise UsageError("the tracker holds frames back, and cannot be asked for the masks of each at once")
        return state

    def load(self, state: State, video: VideoInfo, next_index: int, names: Mapping[int, str]) -> None:
        """Go on after a state of another time or segmenter. There is no frame to prompt on before the next one."""
        self.segmenter.start(video)
        self.segmenter.load_state_dict(state, next_index)
        self.segmenter.finder.names = dict(names)
        self.shown, self.next_index = None, next_index

    def _with(self, shown: Shown, prompt: Prompt) -> FrameStep:
        """The frame just seen with another prompt on it."""
        step = shown.step
        earlier = next((p for p in step.prompts if p.object_id == prompt.object_id), None)
        if earlier is not None and prompt.mask is None and prompt.box is None:  # clicks change what is shown
            if earlier.mask is None:
                points, labels = (*earlier.points, *prompt.points), (*earlier.point_labels, *prompt.point_labels)
                prompt = replace(earlier, points=points, point_labels=labels)
            else:
                (prompt,) = self.segmenter.draw(step, [prompt], shown.by_id)
        prompts = [*(p for p in step.prompts if p.object_id != prompt.object_id), prompt]
        found = [one for one in step.found or () if one[0].object_id != prompt.object_id]
        return replace(step, prompts=prompts, found=found)

    def _again(self, shown: Shown, step: FrameStep) -> Shown:
        """The frame just seen, computed from the state before it; nothing is searched for again."""
        segmenter, finder, last_id = self.segmenter, self.segmenter.finder, self.next_id - 1
        step = replace(step, search=False, drawn=(), given={})
        with self._undone_by_errors(self.state()):
            segmenter.load_state_dict(shown.before, step.frame.index)
            finder.reserve(last_id)
            finder.names |= {p.object_id: p.label for p in step.prompts if p.label is not None}
            ((_, masks),) = segmenter.advance([step])
        if self.draws_prompts:  # once is enough
            step = replace(step, prompts=step.drawn)
        return replace(shown, step=step, masks=masks)

    @contextmanager
    def _undone_by_errors(self, now: State) -> Iterator[None]:
        """``now`` is the state at the beginning of the block, which is there again when the block fails."""
        names = dict(self.names)
        try:
            yield
        except BaseException:
            self._restore(now, names)
            raise

    def _restore(self, state: State, names: dict[int, str]) -> None:
        self.segmenter.load_state_dict(state, self.next_index)
        self.segmenter.finder.names = names
