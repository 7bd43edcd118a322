"""The networks of the server: loaded once, shared by all sessions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import ModuleType

import torch

from vidseg.errors import UsageError
from vidseg_pipelines.build import Models
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.serve.batching import BatchedEncoder
from vidseg_pipelines.serve.cores import Cores
from vidseg_pipelines.serve.drafts import DraftingSession


class Networks:
    """HQ-SAM and a tracker that has not started, of which every session gets a copy with the same weights."""

    def __init__(self, models: Models) -> None:
        """Take them over.

        Raises:
            UsageError: the tracker holds frames back, or finds its objects itself.
        """
        tracker = models.tracker
        if tracker.lookahead or tracker.finds_objects:
            kind = type(tracker).__name__
            raise UsageError(f"{kind}: a tracker that follows masks frame by frame expected, such as xmem")
        self.cores = Cores(models.sam.device)
        self.encoder = BatchedEncoder(models.sam, self.cores)
        self._tracker = tracker

    def session(self, *, max_objects: int | None = None, detect_every: int = 0) -> DraftingSession:
        """A new session with the shared weights.

        Raises:
            UsageError: wrong values.
        """
        models = self.models()
        return DraftingSession(
            tracker=models.tracker, model=models.sam, max_objects=max_objects, detect_every=detect_every
        )

    def models(self) -> Models:
        """A tracker of one's own, with the shared weights."""
        tracker = copy.deepcopy(self._tracker, {id(network): network for network in _networks_in(self._tracker)})
        return Models(tracker, self.encoder, Refiner(self.encoder))


def _networks_in(thing: object, depth: int = 4) -> Iterator[torch.nn.Module]:
    """The networks that an object holds, or an object that it holds."""
    if isinstance(thing, torch.nn.Module):
        yield thing
    elif depth and not isinstance(thing, (type, ModuleType)):
        parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (list, tuple)) else ()
        for part in [*parts, *getattr(thing, "__dict__", {}).values()]:
            yield from _networks_in(part, depth - 1)
