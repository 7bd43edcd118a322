"""Seconds per stage: what the manifest reports and the benchmark divides."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up wall seconds per stage name; stages of several threads may overlap."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body of a ``with`` block as ``stage``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[stage] += time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Stage name to seconds, by name."""
        with self._lock:
            return {stage: round(value, 4) for stage, value in sorted(self._seconds.items())}
