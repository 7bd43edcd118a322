"""One network for many sessions: what several threads encode at the same time goes through it in one pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from vidseg.compiling import Compiled
from vidseg.sam.config import InputConfig, Output
from vidseg.sam.mask_decoder import Candidates
from vidseg.sam.model import FrameFeatures, Masks, SegmentAnything
from vidseg.sam.objectness import Objectness
from vidseg.sam.prompt_batch import PromptBatch
from vidseg_pipelines.serve.cores import Cores

Images = Sequence[npt.NDArray[np.uint8]]

_MOST = 16  # images of one pass


@dataclass(eq=False)
class _Request:
    images: Images
    side: int | None
    answer: Future[list[FrameFeatures]] = field(default_factory=Future)


class BatchedEncoder:
    """A :class:`SegmentAnything` for several threads. Who comes while passes run waits, and joins the next one.

    A GPU has one pass at a time. A CPU has as many as it has cores: there a pass of several images takes as long as a
    pass of each, and one on several cores wastes some of their time.

    The results are those of single passes, but for the rounding of another batch size.
    """

    def __init__(self, sam: SegmentAnything, cores: Cores) -> None:
        """Around a network, which nobody else uses; ``cores`` are those of the threads that call."""
        self.sam, self._cores = sam, cores
        self.passes = 0
        """Passes so far, for the metrics."""
        self.images = 0
        """Images in them."""
        self._waiting: list[_Request] = []
        self._state, self._passes = threading.Lock(), threading.Semaphore(max(1, cores.count))

    @property
    def config(self) -> InputConfig:
        """Of the network."""
        return self.sam.config

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.sam.device

    @property
    def objectness(self) -> Objectness | None:
        """Of the network."""
        return self.sam.objectness

    @property
    def compiled(self) -> Compiled | None:
        """Of the network."""
        return self.sam.compiled

    def encode(self, images: Images, side: int | None = None) -> list[FrameFeatures]:
        """As :meth:`vidseg.sam.model.Sam.encode`."""
        mine = _Request(images, side)
        with self._state:
            self._waiting.append(mine)
        with self._cores.waiting():
            self._passes.acquire()
        try:
            if group := self._taken(mine):
                self._cores.take_share()
                self._encode(group)
        finally:
            self._passes.release()
        if not mine.answer.done():
            with self._cores.waiting():
                mine.answer.exception()
        self._cores.take_share()
        return mine.answer.result()

    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: Output | None = None,
        candidates: Candidates = "single",
        max_batch: int | None = None,
    ) -> list[Masks]:
        """As :meth:`vidseg.sam.model.Sam.decode`."""
        return self.sam.decode(features, prompts, output, candidates, max_batch)

    def with_output(self, output: Output) -> SegmentAnything:
        """The same network with another output, which does not join passes."""
        return self.sam.with_output(output)

    def _taken(self, mine: _Request) -> list[_Request]:
        """A request with all that wait and fit one pass with it; nothing where another pass has taken it."""
        with self._state:
            if mine not in self._waiting:
                return []
            group, count = [mine], len(mine.images)
            for request in self._waiting:
                if request is not mine and request.side == mine.side and count + len(request.images) <= _MOST:
                    group.append(request)
                    count += len(request.images)
            self._waiting = [request for request in self._waiting if request not in group]
            self.passes, self.images = self.passes + 1, self.images + count
        return group

    def _encode(self, group: Sequence[_Request]) -> None:
        """One pass."""
        try:
            images = [image for request in group for image in request.images]
            features = iter(self.sam.encode(images, group[0].side))
            for request in group:
                request.answer.set_result([next(features) for _ in request.images])
        except BaseException as error:
            for request in group:
                if not request.answer.done():
                    request.answer.set_exception(error)
