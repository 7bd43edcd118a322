"""The networks of the server: loaded once, shared by all sessions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import torch

from vidseg.errors import UsageError
from vidseg.loading import load_sam
from vidseg.registry import build_tracker
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import SegmentAnything
from vidseg.types import Tracker
from vidseg_pipelines.serve.batching import BatchedEncoder
from vidseg_pipelines.serve.cores import Cores
from vidseg_pipelines.session import Session


@dataclass(frozen=True)
class ServedModels:
    """Which networks the server has; the fields are those of :class:`vidseg.config.RunConfig`."""

    tracker: str = "xmem"
    model: str = "compact"
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False

    def load(self) -> Networks:
        """The networks.

        Raises:
            UsageError: unknown names, or a tracker that cannot work frame by frame. WeightsError: missing weights.
        """
        device = resolve_device(self.device)
        dtype = resolve_dtype(self.dtype, device)
        sam = load_sam(self.model, device=device, dtype=dtype, offline=self.offline)
        tracker = build_tracker(self.tracker, {}, device=device, dtype=dtype, offline=self.offline)
        return Networks(sam, tracker)


class Networks:
    """HQ-SAM and a tracker that has not started, of which every session gets a copy with the same weights."""

    def __init__(self, sam: SegmentAnything, tracker: Tracker) -> None:
        """Take both over.

        Raises:
            UsageError: the tracker holds frames back, or finds its objects itself.
        """
        if tracker.lookahead or tracker.finds_objects:
            kind = type(tracker).__name__
            raise UsageError(f"{kind}: a tracker that follows masks frame by frame expected, such as xmem")
        self.cores = Cores(sam.device)
        self.encoder = BatchedEncoder(sam, self.cores)
        self._tracker = tracker

    def session(self, *, max_objects: int | None = None, detect_every: int = 0) -> Session:
        """A new session with the shared weights.

        Raises:
            UsageError: wrong values.
        """
        tracker = copy.deepcopy(self._tracker, {id(network): network for network in _networks_in(self._tracker)})
        return Session(tracker=tracker, model=self.encoder, max_objects=max_objects, detect_every=detect_every)


def _networks_in(thing: object, depth: int = 4) -> Iterator[torch.nn.Module]:
    """The networks that an object holds, or an object that it holds."""
    if isinstance(thing, torch.nn.Module):
        yield thing
    elif depth and not isinstance(thing, (type, ModuleType)):
        parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (list, tuple)) else ()
        for part in [*parts, *getattr(thing, "__dict__", {}).values()]:
            yield from _networks_in(part, depth - 1)
