"""Every setting of the Cutie tracker, under the official names where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vidseg.errors import UsageError
from vidseg.options import from_mapping


@dataclass(frozen=True, slots=True)
class LongTermOptions:
    """The long-term memory of every bucket."""

    count_usage: bool = True
    """Count how often its elements are read; the least used are dropped first."""
    max_mem_frames: int = 10
    """Memory frames, with the permanent one, that start a consolidation."""
    min_mem_frames: int = 5
    """Memory frames, with the permanent one, that stay after it."""
    num_prototypes: int = 128
    """Elements one consolidation adds."""
    max_num_tokens: int = 10000
    """Bound of the long-term memory."""
    buffer_tokens: int = 2000
    """Elements dropped beyond what is necessary once the bound is reached."""


@dataclass(frozen=True, slots=True)
class CutieOptions:
    """Settings of the Cutie tracker: the official ones, then those of streams."""

    weights: str = "cutie-base-mega"
    """A name of the catalogue or a file."""
    size: int = 480
    """Shorter side in pixels to which larger frames are reduced; -1 = the video's own size."""
    mem_every: int = 5
    """A frame is memorised every so many frames."""
    stagger_updates: int = 5
    """Updates of the sensory memory between two memory frames."""
    top_k: int = 30
    """Memory elements read per pixel."""
    chunk_size: int = -1
    """Objects that are read together and see each other; -1 = all that joined on the same frame."""
    use_long_term: bool = True
    """Long-term memory. False: the permanent frame and the newest ``max_mem_frames - 1`` are kept."""
    max_mem_frames: int = 5
    """Memory frames without long-term memory."""
    long_term: LongTermOptions = field(default_factory=LongTermOptions)
    max_permanent_frames: int = 10
    """Permanent memory frames: the first one and the newest corrections. ``memory: official`` keeps all."""
    max_internal_size: int = -1
    """Shorter side to which the core reduces images without averaging, as the published scripts do; -1 = never."""
    flip_aug: bool = False
    """Average with the mirrored image: twice the time."""
    memory: Literal["correct", "official"] = "correct"
    """'official' repeats two faults of the published code when objects are removed, to compare numbers."""
    absence: bool = True
    """Frames that show nothing (one colour, at most with noise) have no objects, and are not memorised."""
    forget_after: int = 0
    """Remove an object and its memory when it was absent for so many frames; 0 = never."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UsageError: names the option, its value and what is allowed.
        """
        least = {"mem_every": 1, "top_k": 1, "max_mem_frames": 2, "stagger_updates": 0, "max_permanent_frames": 1}
        for name, minimum in (least | {"forget_after": 0}).items():
            if getattr(self, name) < minimum:
                raise UsageError(f"cutie option {name} = {getattr(self, name)}: must be at least {minimum}")
        for name in ("size", "max_internal_size"):
            if getattr(self, name) != -1 and getattr(self, name) < 16:
                raise UsageError(f"cutie option {name} = {getattr(self, name)}: must be at least 16, or -1")
        if self.chunk_size != -1 and self.chunk_size < 1:
            raise UsageError(f"cutie option chunk_size = {self.chunk_size}: must be at least 1, or -1 for all")
        long = self.long_term
        if not 1 <= long.min_mem_frames < long.max_mem_frames:
            raise UsageError(
                f"cutie option long_term.min_mem_frames = {long.min_mem_frames}: "
                f"must be between 1 and max_mem_frames - 1 ({long.max_mem_frames - 1})"
            )
        if long.num_prototypes < 1 or long.buffer_tokens < 0:
            raise UsageError("cutie options long_term.num_prototypes and buffer_tokens: must be at least 1 and 0")
        if long.max_num_tokens <= long.num_prototypes + long.buffer_tokens:
            raise UsageError(
                f"cutie option long_term.max_num_tokens = {long.max_num_tokens}: must be more than "
                f"num_prototypes + buffer_tokens ({long.num_prototypes + long.buffer_tokens})"
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> CutieOptions:
        """Check names and types; ``long_term`` is a mapping of its own.

        Raises:
            UsageError: an unknown option (with the closest name) or a value of another type.
        """
        return from_mapping(cls, options, where="cutie tracker")
