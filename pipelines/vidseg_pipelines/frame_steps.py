"""Frames on their way through a segmenter: what is known of them before, between and after its two halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vidseg.sam.model import FrameFeatures
from vidseg.types import Frame, Prompt, Tracks
from vidseg_pipelines.object_finder import Found


@dataclass
class FrameStep:
    """A frame on its way: what is known of it before it is computed, and what is found out meanwhile."""

    frame: Frame
    prompts: Sequence[Prompt] = ()
    """What the user says of it; fits the frame."""
    removed: Sequence[int] = ()
    """Objects that are forgotten before it is computed."""
    found: Sequence[Found] | None = None
    """New objects that a search has found on it; None: nobody has searched."""
    search: bool = True
    """Whether to search if it is time to."""
    features: FrameFeatures | None = None
    drawn: Sequence[Prompt] = ()
    """The prompts as masks, where the tracker takes masks."""
    given: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Masks that are taken as they are, disjoint: those of the prompts and of new objects."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker said of some frames, whose masks are still to be drawn, and which objects there were by then."""

    tracks: Sequence[Tracks]
    followed: frozenset[int]
