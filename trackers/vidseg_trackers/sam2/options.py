"""Every setting of the SAM 2 tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vidseg.errors import UsageError
from vidseg.options import from_mapping

AUTO = "auto"
"""Of the weights: those of the model that draws the masks, if it is a SAM 2."""
DEFAULT = "sam2.1-hiera-tiny"


@dataclass(frozen=True, slots=True)
class Sam2Options:
    """Settings of the SAM 2 tracker."""

    weights: str = AUTO
    """A name of the catalogue, a file, or NAME=FILE; auto: the weights of --model where that is a SAM 2, else
    sam2.1-hiera-tiny. With the weights of --model a frame is encoded once for both."""
    max_cond_frames: int = 8
    """Prompted frames that are kept and read: the first one and the newest. The official code keeps all."""
    memory_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of stored memory; bfloat16 is the official one, and half the size."""
    memory: Literal["correct", "official"] = "correct"
    """'official' repeats what the published code does with prompts: corrections of tracked frames do not last, given
    masks are reduced before they are remembered, and the distances of short videos are scaled by their length."""
    forget_after: int = 0
    """Remove an object and its memory when it was absent for so many frames; 0 = never."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work (UsageError)."""
        if self.max_cond_frames < 2:
            raise UsageError(f"sam2 option max_cond_frames = {self.max_cond_frames}: must be at least 2")
        if self.forget_after < 0:
            raise UsageError(f"sam2 option forget_after = {self.forget_after}: must be at least 0")

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> Sam2Options:
        """Check names and types.

        Raises:
            UsageError: an unknown option (with the closest name) or a value of another type.
        """
        return from_mapping(cls, options, where="sam2 tracker")
