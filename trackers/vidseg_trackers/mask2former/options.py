"""Every setting of the Mask2Former tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vidseg.errors import UsageError
from vidseg.options import from_mapping
from vidseg_trackers.mask2former.classes import Classes


@dataclass(frozen=True, slots=True)
class Mask2FormerOptions:
    """Settings of the Mask2Former tracker."""

    weights: str = "mask2former-ytvis2021-r50"
    """A name of the catalogue, or a detectron2 file (.pkl, .pth) or .safetensors."""
    mode: Literal["online", "offline"] = "online"
    """online: causal, memory does not grow. offline: the whole video as one clip, as published; memory grows by tens of
    MB per frame."""
    window: int = 1
    """online: frames that are looked at together. Over 1 means that results come so many frames late."""
    size: int | None = None
    """Shorter side in pixels at which the network works (default: 360 for ResNet, 480 for Swin, as published)."""
    max_size: int = 1333
    """Longest side in pixels at which the network works."""
    max_objects: int = 10
    """Most objects at a time. offline: of the whole video, as published."""
    min_score: float = 0.5
    """Class probability (0..1) from which an object is reported (offline), or a track begins or is found again
    (online). 0 with mode=offline gives all that the published evaluation counts."""
    keep_score: float = 0.1
    """online: class probability from which an object that was just there is followed."""
    min_similarity: float = 0.5
    """online: least cosine of the embeddings of one object, -1..1."""
    max_gap: int = 30
    """online: frames an object may be hidden and still keep its id."""
    memory: int = 10
    """online: embeddings remembered per object."""
    max_tracks: int = 100
    """online: objects remembered, visible or not."""
    max_overlap: float = 0.6
    """online: no track begins on a mask that overlaps (intersection over union) more than this with another object."""
    classes: Classes = "auto"
    """Names of the classes; 'numbers' labels objects with the category ids of the data set, for evaluation."""
    video: bool | None = None
    """Position code with time (True) or without (False); default: with time for 40 classes. MinVIS files want False."""

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            UsageError: names the option, its value and what is allowed.
        """
        for name, least in {"window": 1, "max_size": 32, "max_objects": 1, "max_gap": 0, "memory": 1}.items():
            if getattr(self, name) < least:
                raise UsageError(f"mask2former option {name} = {getattr(self, name)}: expected at least {least}")
        for name in ("min_score", "keep_score", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"mask2former option {name} = {getattr(self, name)}: expected 0 to 1")
        if not -1 <= self.min_similarity <= 1:
            raise UsageError(f"mask2former option min_similarity = {self.min_similarity}: expected -1 to 1")
        if self.size is not None and self.size < 32:
            raise UsageError(f"mask2former option size = {self.size}: expected at least 32")
        if self.max_tracks < self.max_objects:
            raise UsageError(
                f"mask2former option max_tracks = {self.max_tracks}: expected at least max_objects ({self.max_objects})"
            )
        if self.mode == "offline" and self.window != 1:
            raise UsageError("mask2former option window: only for mode=online; offline looks at the whole video")

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> Mask2FormerOptions:
        """Check names and types.

        Raises:
            UsageError: unknown option (with the closest name) or a value of another type.
        """
        return from_mapping(cls, options, where="mask2former tracker")
