"""What does the calls of all sessions: threads, how many wait, and how long calls take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vidseg_pipelines.serve.cores import CORES
from vidseg_pipelines.serve.hub import Hub
from vidseg_pipelines.serve.served_session import ServedSession, TooMuch

T = TypeVar("T")
_PAUSE_S = 0.3
"""Seconds without a call after which a session prepares for the next one: who steps through a video is quicker."""


class Workers:
    """Threads that do the calls of sessions, and what is measured of them."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.threads = ThreadPoolExecutor(2 * CORES, "session")  # some wait for a pass of the encoder
        self.waiting = 0
        self.preparing: set[asyncio.Task[None]] = set()
        self.registry = CollectorRegistry()
        self.frames = Counter("vidseg_frames", "Frames segmented", registry=self.registry)
        self.seconds = Histogram("vidseg_call_seconds", "Time of calls", ["call"], registry=self.registry)
        for name, text, value in (
            ("vidseg_sessions", "Open sessions", lambda: len(hub.ids)),
            ("vidseg_sessions_in_memory", "Sessions in memory", lambda: hub.in_memory),
            ("vidseg_calls_waiting", "Calls that wait or run", lambda: self.waiting),
            ("vidseg_encoder_passes", "Passes of the image encoder", lambda: self._encoder("passes")),
            ("vidseg_encoder_images", "Images in these passes", lambda: self._encoder("images")),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def _encoder(self, what: str) -> int:
        return int(getattr(self.hub.networks().encoder, what)) if self.hub.ready else 0

    async def compute(self, name: str, work: Callable[[], T]) -> T:
        """Work of a session in a thread.

        Raises:
            TooMuch: too many calls wait.
        """
        if self.waiting >= self.hub.limits.waiting:
            raise TooMuch(f"{self.waiting} calls wait already: try again in a moment")

        def counted() -> T:
            begun = time.perf_counter()
            with self.hub.networks().cores.working():
                result = work()
            self.seconds.labels(name).observe(time.perf_counter() - begun)
            return result

        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, counted)
        finally:
            self.waiting -= 1

    def prepare(self, served: ServedSession) -> None:
        """Soon, let a session do what makes its next call quicker, unless that comes before."""

        async def soon(called: int) -> None:
            await asyncio.sleep(_PAUSE_S)
            if served.called == called:
                with contextlib.suppress(Exception):  # the next call says it
                    await self.compute("prepare", served.prepare)

        task = asyncio.create_task(soon(served.called))
        self.preparing.add(task)
        task.add_done_callback(self.preparing.discard)

    async def clean(self) -> None:
        """Let sessions rest that nobody calls."""
        while True:
            await asyncio.sleep(min(10.0, max(0.2, self.hub.limits.idle_s / 4)))
            await asyncio.to_thread(self.hub.make_room)
