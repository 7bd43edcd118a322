"""The streaming loop: read-ahead thread -> tracker and HQ-SAM -> write-behind thread, with bounded queues between.

Tracker and HQ-SAM may work at the same time: see :mod:`vidseg_pipelines.overlap`.

Memory does not grow with the length of the video. An error of any stage stops the run and is raised once; what was
finished before is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, repeat
from typing import TypeAlias

from vidseg.heap import share_one_heap, trim_heap
from vidseg.masks.frame_masks import FrameMasks, Sink
from vidseg.types import Frame
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.overlap import InTurn, Overlap, overlaps
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.snapshot import Snapshot, Snapshots
from vidseg_pipelines.threads import Prefetch, WriteBehind

Advance = Callable[[Sequence[FrameMasks]], None]
Result: TypeAlias = tuple[Frame, FrameMasks]


class OutOfTime(KeyboardInterrupt):
    """The run is to stop within seconds: it keeps what it needs to go on, and exports nothing."""


class Preempted(OutOfTime):
    """Raised by ``advance``: the run is to stop now, to go on from exactly here later."""


def stream(
    frames: Iterable[Frame],
    segmenter: Segmenter,
    sinks: Sequence[Sink],
    *,
    batch: int,
    advance: Advance = lambda results: None,
    snapshots: Snapshots | None = None,
    cancel: Callable[[], None] = lambda: None,
    live: bool = False,
    first_alone: bool = False,
) -> None:
    """Segment ``frames`` in micro-batches of ``batch`` and write every result to all ``sinks``, in order.

    ``advance(results)`` is called with what was done since the last call; it may raise :class:`Preempted`, then a
    snapshot is taken first. ``snapshots`` are taken between two micro-batches and saved when every frame before has
    been written. ``cancel()`` makes ``frames`` end, also while it waits for the next one. ``live``: every result is
    there before the next frames are waited for. ``first_alone``: the first frame goes ahead of the rest of its
    micro-batch, so that its result is there sooner.
    """
    share_one_heap()
    clock = segmenter.clock
    reader = Prefetch(frames, size=2 * batch, cancel=cancel)
    writer = WriteBehind(_Writing(sinks, snapshots, clock), size=4 * batch)
    work = (InTurn if live or not overlaps(segmenter) else Overlap)(segmenter, writer.put)
    sizes = chain((1, batch - 1) if first_alone and batch > 1 else (), repeat(batch))
    done, read = False, 0
    try:
        iterator = iter(reader)
        while True:
            with clock("wait for input"):
                group = list(islice(iterator, next(sizes)))
            if not group:
                break
            end = group[-1].index + 1
            if not read and segmenter.refiner.uses_sam and segmenter.sam.compiled:
                with clock("compile"):  # while one thread compiles, torch takes other paths in all of them
                    segmenter.sam.encode([group[0].rgb])
            try:
                _tell(work.step(group), advance)
                if (first_alone and not read) or (snapshots is not None and snapshots.due(end)):
                    _tell(work.drain(), advance)
            except Preempted:
                work.drain()
                if snapshots is not None and (snapshot := snapshots.take(segmenter, end, now=True)):
                    writer.put(snapshot)
                done = True  # what was computed is written
                raise
            read += len(group)
            if snapshots is not None and (snapshot := snapshots.take(segmenter, end)):
                writer.put(snapshot)
        _tell(work.finish(), advance)
        done = True
    finally:
        reader.close()
        work.close()
        with clock("wait for output"):
            writer.close(check=done)
        trim_heap()


class _Writing:
    """What the writing thread does: results go to all sinks, snapshots to their file."""

    def __init__(self, sinks: Sequence[Sink], snapshots: Snapshots | None, clock: StageClock) -> None:
        self._sinks, self._snapshots, self._clock = sinks, snapshots, clock

    def __call__(self, item: Result | Snapshot) -> None:
        if not isinstance(item, Snapshot):
            with self._clock("write"):
                for sink in self._sinks:
                    sink.write(*item)
        elif self._snapshots is not None:
            self._snapshots.save(item)


def _tell(results: Sequence[FrameMasks], advance: Advance) -> None:
    if results:
        advance(results)
