"""Groups of frames through a segmenter: in turn, or with two things at once on the cores of a CPU.

One thread follows the objects; another one draws the masks of the group before and looks at the frames to come. Each
has half of the cores for its operations. That keeps them busier than dividing every operation among all of them: many
are too small for it. Who does what may change from run to run, but not how it is computed, so the results do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, runtime_checkable

import torch

from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Frame
from vidseg_pipelines.frame_steps import Tracked
from vidseg_pipelines.segmenter import Segmenter

Deliver = Callable[[tuple[Frame, FrameMasks]], None]


@runtime_checkable
class LooksAhead(Protocol):
    """A tracker part of whose work on a frame depends on that frame alone."""

    @property
    def looks_ahead(self) -> bool:
        """Whether that part is worth a thread of its own, and its results may wait in memory."""
        ...

    def look(self, frame: Frame) -> object:
        """Do that part, while another thread may be in ``step``; changes nothing."""
        ...

    def expect(self, index: int, look: Callable[[], object]) -> None:
        """``step`` calls ``look`` for what :meth:`look` gives of frame ``index``, instead of doing it itself."""
        ...


class InTurn:
    """One thing after the other. Results go to ``deliver``, in order."""

    def __init__(self, segmenter: Segmenter, deliver: Deliver) -> None:
        self._segmenter, self._deliver = segmenter, deliver

    def step(self, frames: Sequence[Frame]) -> list[FrameMasks]:
        """The next frames; returns results that were delivered since the last call."""
        return self._delivered(self._segmenter.step(frames))

    def drain(self) -> list[FrameMasks]:
        """Finish what was begun, so that the state of the segmenter is the one after the frames so far."""
        return []

    def finish(self) -> list[FrameMasks]:
        """No more frames: the rest."""
        return [*self.drain(), *self._delivered(self._segmenter.finish())]

    def close(self) -> None:
        """Deliver what waits to be drawn, and end the thread, where there is one."""

    def _delivered(self, results: Sequence[tuple[Frame, FrameMasks]]) -> list[FrameMasks]:
        for result in results:
            self._deliver(result)
        return [masks for _, masks in results]


class Overlap(InTurn):
    """Two things at once. Results go to ``deliver``, in order, from the drawing thread."""

    def __init__(self, segmenter: Segmenter, deliver: Deliver) -> None:
        super().__init__(segmenter, deliver)
        self._cores = torch.get_num_threads()
        segmenter.finder.threads = self._cores  # nothing else is done during the first search
        half = max(1, self._cores // 2)
        torch.set_num_threads(half)
        self._thread = ThreadPoolExecutor(1, "vidseg-draw", torch.set_num_threads, (half,))
        self._tracked: Tracked | None = None

    def step(self, frames: Sequence[Frame]) -> list[FrameMasks]:
        """See :class:`InTurn`; what it returns is the group before."""
        if self._segmenter.finder.followed:
            for frame in frames[1:]:
                self._look_ahead(frame)
        drawing = self._draw()
        self._tracked = self._segmenter.track(frames)
        return drawing.result() if drawing else []

    def drain(self) -> list[FrameMasks]:
        """See :class:`InTurn`."""
        drawing = self._draw()
        return drawing.result() if drawing else []

    def close(self) -> None:
        """See :class:`InTurn`."""
        with suppress(Exception):  # something is waiting only where another error is on its way
            self.drain()
        self._thread.shutdown()
        torch.set_num_threads(self._cores)

    def _draw(self) -> Future[list[FrameMasks]] | None:
        tracked, self._tracked = self._tracked, None
        if tracked is None:
            return None
        return self._thread.submit(lambda: self._delivered(self._segmenter.draw_tracked(tracked)))

    def _look_ahead(self, frame: Frame) -> None:
        """Look at a frame in the drawing thread, unless its step comes first."""
        tracker = self._segmenter.tracker
        assert isinstance(tracker, LooksAhead)

        def look() -> object:
            with self._segmenter.clock("track"):
                return tracker.look(frame)

        begun = self._thread.submit(look)
        tracker.expect(frame.index, lambda: tracker.look(frame) if begun.cancel() else begun.result())


def overlaps(segmenter: Segmenter) -> bool:
    """Whether two things at once are faster: on several cores, with a tracker that is made for it."""
    tracker = segmenter.tracker
    several = segmenter.sam.device.type == "cpu" and torch.get_num_threads() > 1
    return several and segmenter.refiner.uses_sam and isinstance(tracker, LooksAhead) and tracker.looks_ahead
