"""Frames in, masks out: tracker and HQ-SAM over micro-batches of frames, without threads or files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidseg.errors import UsageError
from vidseg.sam.discovery import find_objects
from vidseg.sam.model import FrameFeatures, Sam
from vidseg.sam.refiner import Refiner
from vidseg.types import Detector, Frame, FrameMasks, Prompt, Proposal, State, Tracker, Tracks, VideoInfo
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.proposals import new_prompts

RETRY_EVERY = 10
"""Frames between attempts to find objects while none has been found."""
_FEW = 0.1
"""Share of a tracker's boxes that may give no mask without a warning."""


@dataclass
class _Pending:
    frame: Frame
    features: FrameFeatures | None = None
    given: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)


class Segmenter:
    """The heart of every pipeline. Encodes each frame once and draws the boxes of a micro-batch in one decoder batch.

    Without ``prompts`` a tracker that wants masks gets the objects that ``detector`` (default: HQ-SAM)
    finds on the first frame that shows any, and with ``detect_every`` = N > 0 new objects every N frames.
    """

    def __init__(
        self,
        tracker: Tracker,
        sam: Sam,
        refiner: Refiner,
        *,
        prompts: Sequence[Prompt] = (),
        max_objects: int = 5,
        detector: Detector | None = None,
        detect_every: int = 0,
        clock: StageClock | None = None,
    ) -> None:
        if prompts and tracker.finds_objects:
            raise UsageError("this tracker finds the objects by itself: leave out the prompts")
        self.tracker, self.sam, self.refiner = tracker, sam, refiner
        self.max_objects = max_objects
        self.detector, self.detect_every = detector, detect_every
        self.clock = clock or StageClock()
        self._prompts: defaultdict[int, list[Prompt]] = defaultdict(list)
        for prompt in prompts:
            self._prompts[prompt.frame_index].append(prompt)
        self._searching = not prompts and not tracker.finds_objects
        self._next_search = 0
        self._highest_id = max((p.object_id for p in prompts), default=0)
        self._labels: dict[int, str] = {}
        self._last_masks: npt.NDArray[np.float32] | None = None
        self._pending: dict[int, _Pending] = {}
        self._boxes = self._empty_boxes = 0

    @property
    def warnings(self) -> list[str]:
        """What of the tracker's own input came to nothing; complete after :meth:`finish`."""
        return [*getattr(self.tracker, "warnings", ()), *self._without_mask(lambda share: share > _FEW)]

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the tracker worked."""
        return [*getattr(self.tracker, "notes", ()), *self._without_mask(lambda share: 0 < share <= _FEW)]

    def _without_mask(self, chosen: Callable[[float], bool]) -> list[str]:
        """Of a tracker that gives boxes alone: how many came to nothing, where ``chosen`` says so of their share."""
        text = f"{self._empty_boxes} of {self._boxes} boxes gave no mask: nothing in them, or hidden by other objects"
        return [text] if self._boxes and chosen(self._empty_boxes / self._boxes) else []

    def start(self, video: VideoInfo) -> None:
        """Prepare for a video."""
        self.tracker.start(video)
        self._pending.clear()

    def step(self, frames: Sequence[Frame]) -> list[tuple[Frame, FrameMasks]]:
        """The next frames, in order; returns those that became final."""
        tracks: list[Tracks] = []
        for frame in frames:
            pending = self._pending[frame.index] = _Pending(frame)
            prompts = self._prompts.pop(frame.index, [])
            if self.tracker.wants_masks and any(p.mask is None for p in prompts):
                prompts = self._draw(pending, prompts)
            if frame.index >= self._next_search and (self._searching or self.detect_every):
                prompts = prompts + self._find(pending, prompts)
            pending.given = {p.object_id: p.mask for p in prompts if p.mask is not None}
            with self.clock("track"):
                tracks += [self._labelled(t) for t in self.tracker.step(frame, prompts)]
            self._last_masks = tracks[-1].masks if tracks else self._last_masks
        return self._refine(tracks)

    def finish(self) -> list[tuple[Frame, FrameMasks]]:
        """No more frames: the rest."""
        with self.clock("track"):
            tracks = self.tracker.finish()
        return self._refine(tracks)

    def state_dict(self) -> State | None:
        """The state after the frames so far, or None while frames are held back (a tracker with lookahead)."""
        if self._pending:
            return None
        own: State = {
            "segmenter.searching": int(self._searching),
            "segmenter.next_search": self._next_search,
            "segmenter.highest_id": self._highest_id,
            "segmenter.labels": json.dumps(self._labels),
            "segmenter.boxes": self._boxes,
            "segmenter.empty_boxes": self._empty_boxes,
        }
        if self.detect_every and self._last_masks is not None:
            own["segmenter.last_masks"] = torch.from_numpy(self._last_masks)
        for key, value in self.tracker.state_dict().items():
            own[f"tracker.{key}"] = value.clone() if isinstance(value, torch.Tensor) else value
        return own

    def load_state_dict(self, state: Mapping[str, torch.Tensor | int | float | str], next_frame: int) -> None:
        """Continue after the frames before ``next_frame``."""
        self._searching = bool(state["segmenter.searching"])
        self._next_search = int(state["segmenter.next_search"])
        self._highest_id = int(state["segmenter.highest_id"])
        self._labels = {int(k): v for k, v in json.loads(str(state["segmenter.labels"])).items()}
        self._boxes = int(state.get("segmenter.boxes", 0))
        self._empty_boxes = int(state.get("segmenter.empty_boxes", 0))
        masks = state.get("segmenter.last_masks")
        self._last_masks = masks.numpy() if isinstance(masks, torch.Tensor) else None
        for index in [i for i in self._prompts if i < next_frame]:
            del self._prompts[index]
        self.tracker.load_state_dict(
            {k.removeprefix("tracker."): v for k, v in state.items() if k.startswith("tracker.")}
        )

    def _features(self, pending: _Pending) -> FrameFeatures:
        if pending.features is None:
            with self.clock("encode"):
                (pending.features,) = self.sam.encode([pending.frame.rgb])
        return pending.features

    def _find(self, pending: _Pending, given: Sequence[Prompt]) -> list[Prompt]:
        """New objects on a frame: those that neither the prompts nor the tracker's last masks cover."""
        frame, known = pending.frame, [p.mask for p in given if p.mask is not None]
        if self._last_masks is not None:
            size = (frame.size[1], frame.size[0])
            known += [cv2.resize(m, size, interpolation=cv2.INTER_LINEAR) > 0.5 for m in self._last_masks]
        features = None if self.detector else self._features(pending)
        with self.clock("find"):
            if self.detector is not None:
                proposals = self.detector.detect(frame)
            else:
                assert features is not None
                found = find_objects(self.sam, features, max_objects=self.max_objects)
                proposals = [Proposal(mask, 1.0) for mask in found]
        free = max(0, self.max_objects - len(known))
        prompts = new_prompts(proposals, frame.index, first_id=self._highest_id + 1, known=known, max_objects=free)
        for prompt, label in prompts:
            self._highest_id = prompt.object_id
            if label is not None:
                self._labels[prompt.object_id] = label
        self._searching = self._searching and not prompts
        self._next_search = frame.index + (RETRY_EVERY if self._searching else self.detect_every)
        return [prompt for prompt, _ in prompts]

    def _labelled(self, tracks: Tracks) -> Tracks:
        """Tracks with the classes that the detector gave their objects."""
        if not self._labels or tracks.labels is not None:
            return tracks
        return replace(tracks, labels=tuple(self._labels.get(int(i)) for i in tracks.ids))

    def _draw(self, pending: _Pending, prompts: Sequence[Prompt]) -> list[Prompt]:
        features = self._features(pending)
        with self.clock("decode"):
            masks = self.refiner.draw(pending.frame, features, prompts)
        return [Prompt(p.frame_index, p.object_id, mask=m) for p, m in zip(prompts, masks, strict=True)]

    def _refine(self, tracks: Sequence[Tracks]) -> list[tuple[Frame, FrameMasks]]:
        if not tracks:
            return []
        pending = [self._pending.pop(t.frame_index) for t in tracks]
        results = self.refiner.refine(
            [p.frame for p in pending],
            [p.features for p in pending],
            tracks,
            [p.given for p in pending],
            clock=self.clock,
        )
        for found, result in zip(tracks, results, strict=True):
            if found.masks is None:
                self._boxes += len(found.ids)
                self._empty_boxes += len(found.ids) - len(result.ids)
        return list(zip([p.frame for p in pending], results, strict=True))
