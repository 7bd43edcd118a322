"""The ``boxes`` tracker: who is where comes from a file that some detector or tracker wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.masks.boxes import clip_boxes
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.association import IouMatcher
from vidseg_trackers.external_files import Detection, read_boxes


@dataclass(frozen=True)
class BoxesOptions:
    """Settings of the ``boxes`` tracker."""

    file: str = ""
    """COCO or YouTube-VIS results (.json), MOT text (.txt) or a journal (.jsonl). Required."""
    min_score: float = 0.0
    """Boxes with a lower score are left out."""
    iou: float = 0.3
    """Boxes without ids: least overlap with the last box of an object, 0..1."""
    max_gap: int = 30
    """Boxes without ids: frames an object may be missing and still keep its id."""
    first_frame: int | None = None
    """Number that the file gives to the first frame (default: 1 for MOT, 0 for COCO)."""
    video_id: int | None = None
    """Which video of a YouTube-VIS file."""

    def __post_init__(self) -> None:
        """Check values."""
        if not self.file:
            raise UsageError("the boxes tracker needs a file of boxes: --boxes FILE")
        if not 0 < self.iou <= 1:
            raise UsageError(f"tracker option iou {self.iou}: over 0 and up to 1 wanted")
        if self.max_gap < 0:
            raise UsageError(f"tracker option max_gap {self.max_gap}: 0 or more wanted")


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> BoxesTracker:
    """Entry point ``boxes``; device, dtype and network play no part.

    Raises:
        UsageError: unknown or wrong options, or no file.
        InputError: the file cannot be read.
    """
    allowed = [field.name for field in fields(BoxesOptions)]
    for name in options:
        if name not in allowed:
            raise UsageError(
                f"unknown option '{name}' of the boxes tracker{did_you_mean(name, allowed)}: allowed are "
                f"{', '.join(allowed)}"
            )
    return BoxesTracker(BoxesOptions(**options))  # type: ignore[arg-type]


class BoxesTracker:
    """Gives every frame the boxes that the file has for it, cut to the frame."""

    lookahead = 0
    wants_masks = False
    finds_objects = True

    def __init__(self, options: BoxesOptions) -> None:
        """Read the whole file.

        Raises:
            InputError: see :func:`vidseg_trackers.external_files.read_boxes`.
        """
        self._options = options
        self._frames: dict[int, list[Detection]] = {}
        for detection in read_boxes(Path(options.file), first_frame=options.first_frame, video_id=options.video_id):
            if detection.score >= options.min_score:
                self._frames.setdefault(detection.frame_index, []).append(detection)
        self._matcher = self._new_matcher()

    def start(self, video: VideoInfo) -> None:
        """Forget the ids given so far.

        Raises:
            InputError: the file has boxes for frames after the video's last one.
        """
        last = max(self._frames, default=0)
        if video.frame_count is not None and last >= video.frame_count:
            raise InputError(
                f"{self._options.file}: boxes for frame {last}, but {video.name} has {video.frame_count} frames, 0 to "
                f"{video.frame_count - 1}; if the file counts from another number, set the tracker option first_frame"
            )
        self._matcher = self._new_matcher()

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """The boxes of this frame, in the order of the file.

        Raises:
            UsageError: a prompt was given; the file says where the objects are.
        """
        if prompts:
            raise UsageError("the boxes tracker takes no prompts: its objects come from the file")
        height, width = frame.size
        found = self._frames.get(frame.index, [])
        boxes = clip_boxes(np.array([d.box for d in found], np.float32).reshape(-1, 4), width, height)
        inside = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        found, boxes = [found[k] for k in inside], boxes[inside]
        labels = tuple(d.label for d in found)
        given = [d.object_id for d in found if d.object_id is not None]
        ids = np.array(given, np.int64) if given else self._matcher.step(frame.index, boxes, labels)
        scores = np.array([d.score for d in found], np.float32)
        return [Tracks(frame.index, ids, boxes, scores, labels)]

    def finish(self) -> list[Tracks]:
        """Nothing is held back."""
        return []

    def state_dict(self) -> State:
        """The ids given so far."""
        return self._matcher.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor | int | float | str]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._matcher.load_state_dict(dict(state))

    def _new_matcher(self) -> IouMatcher:
        return IouMatcher(iou=self._options.iou, max_gap=self._options.max_gap)
