"""Frames in, masks out: tracker and HQ-SAM over micro-batches of frames, without files or threads but for searches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from vidseg.errors import UsageError
from vidseg.heap import FrameHeap
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.overlap import disjoint_masks
from vidseg.prompt_text import check_removals, fit_prompts
from vidseg.sam.model import FrameFeatures, SegmentAnything, SharesEncoder
from vidseg.state import nested
from vidseg.types import Detector, Frame, Prompt, RemovesObjects, State, Tracker, Tracks, VideoInfo
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.frame_steps import FrameStep, Tracked
from vidseg_pipelines.object_finder import ObjectFinder
from vidseg_pipelines.references import References
from vidseg_pipelines.refiner import Refiner

_FEW = 0.1
"""Share of a tracker's boxes that may give no mask without a warning."""


class Segmenter:
    """The heart of every pipeline. Encodes each frame once and draws the boxes of a micro-batch in one decoder batch.

    A tracker with the network that draws the masks (:class:`vidseg.sam.model.SharesEncoder`) encodes for both.

    Without ``prompts`` a tracker that wants masks gets the objects that ``detector`` (default: HQ-SAM)
    finds on the first frame that shows any, and with ``detect_every`` = N > 0 new objects every N frames.
    """

    def __init__(
        self,
        tracker: Tracker,
        sam: SegmentAnything,
        refiner: Refiner,
        *,
        prompts: Sequence[Prompt] = (),
        removals: Mapping[int, int] | None = None,
        names: Mapping[int, str] | None = None,
        max_objects: int = 5,
        first_found_id: int = 0,
        detector: Detector | None = None,
        detect_every: int = 0,
        search: bool | None = None,
        batch: int = 4,
        clock: StageClock | None = None,
    ) -> None:
        """A segmenter for one video; ``batch`` is the most frames that are encoded or refined at a time.

        ``removals``: object id to the frame from which on it is forgotten.

        ``search``: look for objects (default: where there are no prompts, and where the detector was asked for some).
        With ``first_found_id`` found objects get ids from there on, and prompts of such ids, which say more of them, do
        not count as prompts here; 0: ids above those of all prompts.

        ``names`` are those of objects by id, besides the labels of the prompts.

        Raises:
            UsageError: settings that this tracker cannot work with.
        """
        removals = removals or {}
        if tracker.finds_objects:
            settings = {
                "the prompts": prompts,
                "--remove": removals,
                "--detect-every": detect_every,
                "--detect-with": detector is not None,
            }
            for name in (name for name, given in settings.items() if given):
                raise UsageError(f"this tracker finds objects automatically: leave out {name}")
        if not refiner.uses_sam and not getattr(tracker, "gives_masks", True):
            raise UsageError("--refine none needs a tracker that draws masks; this one gives boxes only")
        self.tracker, self.sam, self.refiner = tracker, sam, refiner
        self._encoder = tracker if isinstance(tracker, SharesEncoder) and tracker.share(sam) else None
        self.batch = batch
        self.clock = clock or StageClock()
        forget = tracker.remove if isinstance(tracker, RemovesObjects) and tracker.can_remove else None
        if removals and forget is None:
            raise UsageError("--remove: the tracker, with these settings, cannot let go of an object")
        named = [p.object_id for p in prompts if not first_found_id or p.object_id < first_found_id]
        searches = (not named or hasattr(detector, "nothing_found")) if search is None else search
        check_removals(removals, prompts, others=bool(searches or detect_every))
        self.finder = ObjectFinder(
            sam,
            detector=detector,
            max_objects=max_objects,
            detect_every=detect_every,
            named=named,
            names={p.object_id: p.label for p in prompts if p.label is not None} | dict(names or {}),
            search=searches and not tracker.finds_objects,
            zoom=refiner.options.zoom,
            forget=forget,
        )
        self._prompts: defaultdict[int, list[Prompt]] = defaultdict(list)
        for prompt in prompts:
            self._prompts[prompt.frame_index].append(prompt)
        self._removals: defaultdict[int, list[int]] = defaultdict(list)
        for object_id, frame_index in removals.items():
            self._removals[frame_index].append(object_id)
        self._not_there: list[str] = []
        self._pending: dict[int, FrameStep] = {}
        self._boxes = self._empty_boxes = 0
        self._references = References()
        self._still = refiner.still_masks()
        self._heap = FrameHeap()

    @property
    def warnings(self) -> list[str]:
        """What of the tracker's own input came to nothing; complete after :meth:`finish`."""
        return [*getattr(self.tracker, "warnings", ()), *self._without_mask(lambda share: share > _FEW)]

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the tracker worked."""
        return [*getattr(self.tracker, "notes", ()), *self._without_mask(lambda share: 0 < share <= _FEW)]

    @property
    def doubts(self) -> list[str]:
        """Warnings that make a run no less complete: an object that was asked for was never found."""
        text = getattr(self.finder.detector, "nothing_found", None)
        return [*([text] if text and self.finder.searched_in_vain else []), *self._not_there]

    def _without_mask(self, chosen: Callable[[float], bool]) -> list[str]:
        """Of a tracker that gives boxes alone: how many came to nothing, where ``chosen`` says so of their share."""
        text = f"{self._empty_boxes} of {self._boxes} boxes gave no mask: nothing in them, or hidden by other objects"
        return [text] if self._boxes and chosen(self._empty_boxes / self._boxes) else []

    def start(self, video: VideoInfo) -> None:
        """Prepare for a video."""
        self.tracker.start(video)
        self._pending.clear()
        self._references = References()
        self._still = self.refiner.still_masks()

    def step(self, frames: Sequence[Frame]) -> list[tuple[Frame, FrameMasks]]:
        """The next frames, in order; returns those that became final.

        Raises:
            UsageError: a prompt that does not fit its frame or shows nothing.
        """
        return self.draw_tracked(self.track(frames))

    def track(self, frames: Sequence[Frame]) -> Tracked:
        """The first half of :meth:`step`; :meth:`draw_tracked` is the other one, which another thread may do."""
        return self._track([self._planned(frame) for frame in frames])

    def _planned(self, frame: Frame) -> FrameStep:
        """A frame with what was said of it beforehand."""
        prompts = fit_prompts(self._prompts.pop(frame.index, ()), frame.hw)
        due = [index for index in self._removals if index <= frame.index]  # also where a frame never came
        return FrameStep(frame, prompts, removed=[i for index in due for i in self._removals.pop(index)])

    def advance(self, steps: Sequence[FrameStep]) -> list[tuple[Frame, FrameMasks]]:
        """As :meth:`step`, with the prompts at hand: they fit their frames."""
        return self.draw_tracked(self._track(steps))

    def _track(self, steps: Sequence[FrameStep]) -> Tracked:
        tracks: list[Tracks] = []
        for step in steps:
            self._pending[step.frame.index] = step
            self._remove(step)
            prompts = self._complete(step)
            with self.clock("track"):
                found = [self.finder.observe(t) for t in self.tracker.step(step.frame, prompts)]
            if self._encoder is not None and self.refiner.uses_sam and any(len(t.ids) for t in found):
                self.features(step)  # the tracker has them
            tracks += found
        self._heap.did(len(steps))
        return Tracked(tracks, frozenset(self.finder.followed))

    def finish(self) -> list[tuple[Frame, FrameMasks]]:
        """No more frames: the rest."""
        with self.clock("track"):
            tracks = self.tracker.finish()
        return self.draw_tracked(Tracked(tracks, frozenset(self.finder.followed)))

    def state_dict(self) -> State | None:
        """The state after the frames so far, or None while frames are held back (a tracker with lookahead)."""
        if self._pending:
            return None
        own: State = {"boxes": self._boxes, "empty_boxes": self._empty_boxes}
        parts = {
            "segmenter": own,
            "finder": self.finder.state_dict(),
            "references": self._references.state_dict(),
            "tracker": self.tracker.state_dict(),
        }
        if self._still is not None:
            parts["still"] = self._still.state_dict()
        return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor | int | float | str], next_frame: int) -> None:
        """Continue after the frames before ``next_frame``."""
        self._pending.clear()
        for name, part in (("finder", self.finder), ("references", self._references), ("tracker", self.tracker)):
            part.load_state_dict(nested(f"{name}.", state))
        if self._still is not None:
            self._still.load_state_dict(nested("still.", state), self.sam.device)
        self._boxes, self._empty_boxes = int(state["segmenter.boxes"]), int(state["segmenter.empty_boxes"])
        for planned in (self._prompts, self._removals):
            for index in [i for i in planned if i < next_frame]:
                del planned[index]

    def draw(
        self, step: FrameStep, prompts: Sequence[Prompt], shown: Mapping[int, npt.NDArray[np.bool_]]
    ) -> list[Prompt]:
        """Prompts on a frame as masks; ``shown`` are the masks that the objects have on it without them."""
        features = self.features(step)
        with self.clock("decode"):
            masks = self.refiner.draw(step.frame, features, prompts, shown)
        return [Prompt(p.frame_index, p.object_id, mask=m) for p, m in zip(prompts, masks, strict=True)]

    def features(self, step: FrameStep) -> FrameFeatures:
        """What the image encoder gives for a frame, which is encoded once."""
        if step.features is None:
            with self.clock("encode"):
                if self._encoder is not None:
                    step.features = self._encoder.features(step.frame)
                else:
                    (step.features,) = self.sam.encode([step.frame.rgb])
        return step.features

    def _remove(self, step: FrameStep) -> None:
        """Let go of the objects that are removed on a frame, which the tracker can."""
        for i in set(step.removed) - self.finder.followed:
            self._not_there.append(f"--remove {i}@{step.frame.index}: there was no object {i}")
        if step.removed and isinstance(self.tracker, RemovesObjects):
            self.tracker.remove(step.removed)
            self.finder.forget(step.removed)

    def _complete(self, step: FrameStep) -> list[Prompt]:
        """The prompts on a frame as the tracker gets them: drawn and disjoint, with those of new objects."""
        prompts = list(step.prompts)
        if self.tracker.wants_masks and any(p.mask is None for p in prompts):
            self.features(step)  # once, for both
            prompts = self.draw(step, prompts, self._shown(step))
        step.drawn = prompts
        self.finder.follow(p.object_id for p in prompts)
        given = disjoint_masks({p.object_id: p.mask for p in prompts if p.mask is not None}, step.frame.index)
        prompts = [replace(p, mask=given[p.object_id]) if p.mask is not None else p for p in prompts]
        if step.found is not None:
            prompts += self.finder.adopt(step.found, step.frame.index, given)
        elif step.search and self.finder.is_due(step.frame.index):
            if self.finder.detector is None:
                self.features(step)  # its time is none of the search
            with self.clock("find"):
                step.found = self.finder.find(step.frame, lambda: self.features(step), given)
            prompts += [prompt for prompt, _ in step.found]
        step.given = {p.object_id: p.mask for p in prompts if p.mask is not None}
        return prompts

    def _shown(self, pending: FrameStep) -> dict[int, npt.NDArray[np.bool_]]:
        """Masks that followed objects would have on a frame without its prompts. The tracker stays as it was."""
        if not self.finder.followed or self.tracker.lookahead:
            return {}
        with self.clock("track"):
            state = self.tracker.state_dict()
            tracks = self.tracker.step(pending.frame)
            self.tracker.load_state_dict(state)
        (masks,) = self.refiner.refine([pending.frame], [pending.features], tracks, clock=self.clock)
        return dict(zip(masks.ids, masks.masks, strict=True))

    def draw_tracked(self, tracked: Tracked) -> list[tuple[Frame, FrameMasks]]:
        """The masks of frames that :meth:`track` gave, in order."""
        results: list[tuple[Frame, FrameMasks]] = []
        for start in range(0, len(tracked.tracks), self.batch):  # with lookahead there may be all frames of a video
            part = tracked.tracks[start : start + self.batch]
            steps = [self._pending.pop(t.frame_index) for t in part]
            masks = self.refiner.refine(
                [step.frame for step in steps],
                [step.features for step in steps],
                part,
                [step.given for step in steps],
                still=self._still,
                clock=self.clock,
            )
            for found, result, pending in zip(part, masks, steps, strict=True):
                if found.masks is None:
                    self._boxes += len(found.ids)
                    self._empty_boxes += len(found.ids) - len(result.ids)
                prompted = {p.object_id for p in pending.prompts}
                with self.clock("compare"):
                    compared = self._references.compare(pending.frame, result, prompted, tracked.followed)
                results.append((pending.frame, compared))
        return results
