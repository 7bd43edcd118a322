"""Batches made ahead of their steps, by processes beside the one that learns: a GPU must not wait for its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from vidseg.training.schedule import BatchRandomness, LoopConfig

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls ``make(draw)`` for the batches of a loop, in other processes if there are ``workers``.

    A batch depends on its :class:`BatchRandomness` alone, so the batches are the same for any number of workers.
    """

    def __init__(
        self, make: Callable[[BatchRandomness], T], loop: LoopConfig, workers: int, rank: int = 0, world: int = 1
    ) -> None:
        self.make, self.loop, self.workers = make, loop, workers
        self.rank, self.world = rank, world
        self._batches: Iterator[T] | None = None

    def __call__(self, draw: BatchRandomness) -> T:
        """The batch of ``draw``; the first call says with which step the loop begins."""
        if not self.workers:
            return self.make(draw)
        if self._batches is None:
            parts = self.world * self.loop.accumulate
            steps = range(draw.batch // parts, self.loop.last)
            places = [(step, self.rank + self.world * k) for step in steps for k in range(self.loop.accumulate)]
            made = _Made(self.make, places, self.loop.seed, parts)
            context = "fork" if "fork" in torch.multiprocessing.get_all_start_methods() else None
            self._batches = iter(
                DataLoader(
                    made,
                    batch_size=None,
                    num_workers=self.workers,
                    collate_fn=_as_made,
                    worker_init_fn=_alone,
                    multiprocessing_context=context,
                    persistent_workers=True,
                )
            )
        return next(self._batches)


class _Made(Dataset[T]):
    def __init__(
        self, make: Callable[[BatchRandomness], T], places: list[tuple[int, int]], seed: int, parts: int
    ) -> None:
        self.make, self.places, self.seed, self.parts = make, places, seed, parts

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> T:
        step, part = self.places[index]
        return self.make(BatchRandomness.of(self.seed, step, part, self.parts))


def _as_made(batch: T) -> T:
    return batch


def _alone(_: int) -> None:
    """One thread per process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
