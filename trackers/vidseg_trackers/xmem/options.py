"""Every setting of the XMem tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vidseg.errors import UsageError
from vidseg.options import from_mapping


@dataclass(frozen=True, slots=True)
class XMemOptions:
    """Settings of the XMem tracker: the official ones with their official defaults, then those of streams."""

    weights: str = "compact-xmem"
    """A name of the catalogue ('compact-xmem' is embedded, 'xmem' and 'xmem-s012' are official) or a file."""
    size: int | None = None
    """Shorter side in pixels at which the network works; -1 = the video's own; default: what the weights want."""
    antialias: bool = True
    """Average pixels when frames shrink. False = plain bilinear, as in the published numbers."""
    mem_every: int = 5
    """A frame is memorised every so many frames."""
    deep_update_every: int = -1
    """Deep update of the sensory memory every so many frames; -1 = on memory frames."""
    top_k: int = 30
    """Memory elements read per pixel."""
    long_term: bool = True
    """Long-term memory. False: all memory frames are kept, so memory grows with the video."""
    max_mid_term_frames: int = 10
    """Memory frames in working memory that start a consolidation."""
    min_mid_term_frames: int = 5
    """Memory frames that stay in working memory after it."""
    max_permanent_frames: int = 10
    """Permanent memory frames, which are not consolidated: the first given one and the newest corrections."""
    forget_on_correction: bool = True
    """After a correction that changes much, of an object's earlier memory only the frames on which it was given or
    corrected count for it."""
    max_long_term_elements: int = 10000
    """Bound of the long-term memory."""
    num_prototypes: int = 128
    """Elements one consolidation adds to the long-term memory."""
    memory: Literal["correct", "official"] = "correct"
    """'official' repeats two faults of the published memory for late objects, to compare numbers."""
    absence: bool = True
    """Leave objects out that cannot be on a frame (blank frames, other scenes) or have left, and learn nothing then."""
    scene_cut: float = 0.0
    """Reset the sensory memory when frames differ by more than this (mean of |difference|, 0..1); 0 = never."""
    forget_after: int = 0
    """Remove an object and its memory when it was absent for so many frames; 0 = never."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UsageError: names the option, its value and what is allowed.
        """
        least = {"mem_every": 1, "top_k": 1, "min_mid_term_frames": 1, "num_prototypes": 1, "forget_after": 0}
        least["max_permanent_frames"] = 1
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise UsageError(f"xmem option {name} = {getattr(self, name)}: expected at least {minimum}")
        if self.size is not None and self.size != -1 and self.size < 16:
            raise UsageError(f"xmem option size = {self.size}: expected at least 16, or -1 for the video's own size")
        if self.deep_update_every != -1 and self.deep_update_every < 1:
            raise UsageError(f"xmem option deep_update_every = {self.deep_update_every}: expected at least 1, or -1")
        if self.max_mid_term_frames <= self.min_mid_term_frames:
            raise UsageError(
                f"xmem option max_mid_term_frames = {self.max_mid_term_frames}: "
                f"expected more than min_mid_term_frames ({self.min_mid_term_frames})"
            )
        if self.max_long_term_elements <= self.num_prototypes:
            raise UsageError(
                f"xmem option max_long_term_elements = {self.max_long_term_elements}: "
                f"expected more than num_prototypes ({self.num_prototypes})"
            )
        if not 0 <= self.scene_cut <= 1:
            raise UsageError(f"xmem option scene_cut = {self.scene_cut}: expected 0 (off) to 1")
        if self.memory == "official" and self.forget_after:
            raise UsageError("xmem option forget_after: the official memory cannot remove objects; use memory=correct")

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> XMemOptions:
        """Check names and types.

        Raises:
            UsageError: unknown option (with the closest name) or a value of another type.
        """
        return from_mapping(cls, options, where="xmem tracker")
