"""What a user says of how to read, besides what: which frames, and how often to connect again. Needs no decoder."""

from __future__ import annotations

from dataclasses import dataclass

from vidseg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often in a row to connect again, and how long to wait before: ``first_s``, then twice as long each time."""

    attempts: int = 10
    first_s: float = 1.0
    cap_s: float = 30.0


DEFAULT_BACKOFF = Backoff()


def frame_bounds(frames: slice | None) -> tuple[int, float]:
    """First index and end (exclusive, may be infinite) of a ``--frames A:B`` slice.

    Raises:
        UsageError: negative or empty range, or a step.
    """
    start, stop = (frames.start or 0, frames.stop) if frames is not None else (0, None)
    if frames is not None and (frames.step not in (None, 1) or start < 0 or (stop is not None and stop <= start)):
        raise UsageError(f"frames {frames.start}:{frames.stop}: expected A:B with 0 <= A < B and no step")
    return start, float("inf") if stop is None else stop
