"""The ``boxes`` tracker: who is where comes from a file that some detector or tracker wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidseg.errors import UsageError
from vidseg.masks.boxes import clip_boxes
from vidseg.options import from_mapping
from vidseg.types import Frame, Prompt, State, Tracks, VideoInfo
from vidseg_trackers.association import IouMatcher
from vidseg_trackers.boxes.files import read_boxes
from vidseg_trackers.boxes.frames import fit_to_video
from vidseg_trackers.detections import Detection


@dataclass(frozen=True)
class BoxesOptions:
    """Settings of the ``boxes`` tracker."""

    file: str = ""
    """COCO or YouTube-VIS json, MOT text, YOLO labels (a file or a folder), or a journal (.jsonl). Required."""
    min_score: float = 0.0
    """Boxes with a lower score are left out."""
    iou: float = 0.3
    """Boxes without ids: least overlap with the last box of an object, 0..1."""
    max_gap: int = 30
    """Boxes without ids: frames an object may be missing and still keep its id."""
    first_frame: int | None = None
    """Number that the file gives to the first frame (default: what its format and its numbers say)."""
    video_id: int | None = None
    """Which video of a file for several."""

    def __post_init__(self) -> None:
        """Check values."""
        if not self.file:
            raise UsageError("the boxes tracker needs a file of boxes: --boxes FILE")
        if not 0 < self.iou <= 1:
            raise UsageError(f"tracker option iou {self.iou}: expected a number over 0, at most 1")
        if self.max_gap < 0:
            raise UsageError(f"tracker option max_gap {self.max_gap}: expected 0 or more")


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> BoxesTracker:
    """Entry point ``boxes``; device, dtype and network play no part.

    Raises:
        UsageError: unknown or wrong options, or no file.
        InputError: the file cannot be read.
    """
    return BoxesTracker(from_mapping(BoxesOptions, options, where="boxes tracker"))


class BoxesTracker:
    """Gives every frame the boxes that the file has for it, cut to the frame."""

    lookahead = 0
    wants_masks = False
    finds_objects = True
    gives_masks = False

    def __init__(self, options: BoxesOptions) -> None:
        """Read the whole file.

        Raises:
            InputError: see :func:`vidseg_trackers.boxes.files.read_boxes`.
        """
        self._options = options
        file = read_boxes(Path(options.file), video_id=options.video_id)
        kept = [detection for detection in file.detections if detection.score >= options.min_score]
        self._given = len(file.detections)
        self._file = replace(file, detections=kept)
        self._frames: dict[int, list[Detection]] = {}
        self._matcher = self._new_matcher()
        self._last = -1
        self._end: int | None = None
        self.warnings: list[str] = []
        """What of the file came to nothing."""
        self.notes: list[str] = []
        """How the file was understood."""

    def start(self, video: VideoInfo) -> None:
        """Find the frame of every box, and forget the ids given so far.

        Raises:
            InputError: the boxes do not fit the video, see :func:`vidseg_trackers.boxes.frames.fit_to_video`.
        """
        self._matcher = self._new_matcher()
        self._last, self._end = -1, video.end
        if not self._file.detections:
            reason = f"all {self._given} boxes score below min_score" if self._given else "no boxes in it"
            self._frames, self.warnings, self.notes = {}, [], [f"{self._options.file}: {reason}"]
            return
        fitted = fit_to_video(self._file, video, self._options.first_frame)
        self._frames, self.warnings, self.notes = fitted.frames, fitted.warnings, fitted.notes
        if any(detection.object_id is None for detection in self._file.detections):
            self.notes.append(f"{self._options.file}: the file has no ids; objects are matched by overlap")

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        """The boxes of this frame, in the order of the file.

        Raises:
            UsageError: a prompt was given; the file says where the objects are.
        """
        if prompts:
            raise UsageError("the boxes tracker takes no prompts: its objects come from the file")
        self._last = frame.index
        height, width = frame.hw
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
        """Nothing is held back; boxes on frames that never came are counted."""
        late = [index for index in self._frames if self._last < index and (self._end is None or index < self._end)]
        if late:
            count = sum(len(self._frames[index]) for index in late)
            self.warnings.append(
                f"{self._options.file}: {count} boxes are on frames {min(late)} to {max(late)}; the last frame was "
                f"{self._last}"
            )
        return []

    def state_dict(self) -> State:
        """The ids given so far."""
        return self._matcher.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._matcher.load_state_dict(dict(state))

    def _new_matcher(self) -> IouMatcher:
        return IouMatcher(iou=self._options.iou, max_gap=self._options.max_gap)
