"""Batches made ahead of their steps, by threads beside the one that learns: a GPU must not wait for its data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from vidseg.training.schedule import BatchRandomness, LoopConfig

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls ``make(draw)`` for the batches of a loop, in other threads if there are ``workers``.

    A batch depends on its :class:`BatchRandomness` alone, so the batches are the same for any number of workers.
    """

    def __init__(
        self, make: Callable[[BatchRandomness], T], loop: LoopConfig, workers: int, rank: int = 0, world: int = 1
    ) -> None:
        self.make, self.loop, self.workers = make, loop, workers
        self.rank, self.parts = rank, world * loop.accumulate
        self.world = world
        self._pool: ThreadPoolExecutor | None = None
        self._draws: Iterator[BatchRandomness] = iter(())
        self._made: deque[Future[T]] = deque()

    def __call__(self, draw: BatchRandomness) -> T:
        """The batch of ``draw``; the first call says with which step the loop begins."""
        if not self.workers:
            return self.make(draw)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "batches")
            self._draws = self._all_from(draw.batch // self.parts)
            for _ in range(2 * self.workers):
                self._begin()
        batch = self._made.popleft().result()
        self._begin()
        return batch

    def _begin(self) -> None:
        """Hand out the next batch, if there is one."""
        draw = next(self._draws, None)
        if draw is not None and self._pool is not None:
            self._made.append(self._pool.submit(self.make, draw))

    def _all_from(self, first: int) -> Iterator[BatchRandomness]:
        for step in range(first, self.loop.last):
            for k in range(self.loop.accumulate):
                yield BatchRandomness.of(self.loop.seed, step, self.rank + self.world * k, self.parts)
