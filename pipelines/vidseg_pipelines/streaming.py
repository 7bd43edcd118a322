"""The streaming loop: read-ahead thread -> tracker and HQ-SAM -> write-behind thread, with bounded queues between.

Memory does not grow with the length of the video. An error of any stage stops the run and is raised once; what was
finished before is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from vidseg.heap import share_one_heap, trim_heap
from vidseg.types import Frame, FrameMasks, Sink
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.threads import Prefetch, WriteBehind

Snapshot = Callable[[int], Callable[[], None] | None]
Advance = Callable[[int, int], None]

TRIM_EVERY = 100
"""Frames after which the heap gives back what is free in it."""


def stream(
    frames: Iterable[Frame],
    segmenter: Segmenter,
    sinks: Sequence[Sink],
    *,
    batch: int,
    clock: StageClock,
    advance: Advance = lambda frames, objects: None,
    snapshot: Snapshot = lambda next_frame: None,
    cancel: Callable[[], None] = lambda: None,
) -> None:
    """Segment ``frames`` in micro-batches of ``batch`` and write every result to all ``sinks``, in order.

    ``advance(frames, objects)`` is told of progress. ``snapshot(next_frame)`` is asked after each micro-batch; the task
    that it returns, if any, runs when every frame before ``next_frame`` has been written. ``cancel()`` makes ``frames``
    end, also while it waits for the next one.
    """
    share_one_heap()
    reader = Prefetch(frames, size=2 * batch, cancel=cancel)
    writer = WriteBehind(size=4 * batch)

    def write(frame: Frame, masks: FrameMasks) -> None:
        with clock("write"):
            for sink in sinks:
                sink.write(frame, masks)

    def deliver(results: Sequence[tuple[Frame, FrameMasks]]) -> None:
        for frame, masks in results:
            writer(lambda frame=frame, masks=masks: write(frame, masks))  # type: ignore[misc]
        if results:
            advance(len(results), len(results[-1][1].ids))

    done, read = False, 0
    try:
        iterator = iter(reader)
        while True:
            with clock("wait for input"):
                group = list(islice(iterator, batch))
            if not group:
                break
            deliver(segmenter.step(group))
            if read // TRIM_EVERY < (read + len(group)) // TRIM_EVERY:
                trim_heap()
            read += len(group)
            task = snapshot(group[-1].index + 1)
            if task is not None:
                writer(task)
        deliver(segmenter.finish())
        done = True
    finally:
        reader.close()
        with clock("wait for output"):
            writer.close(check=done)
