"""Which share of the cores every computation gets, when several run at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CORES = os.cpu_count() or 1


class Cores:
    """Threads of PyTorch: all cores for one computation alone, fewer for each of several. Who only waits has none."""

    def __init__(self, device: torch.device, count: int = CORES) -> None:
        """``count`` cores; where ``device`` is no CPU there is nothing to share."""
        self.count = count if device.type == "cpu" else 0
        """Cores that are shared; 0: none."""
        self._working = 0
        self._lock = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """One computation, in this thread of Python."""
        before = torch.get_num_threads()
        self._add(1)
        try:
            self.take_share()
            yield
        finally:
            self._add(-1)
            if self.count:
                torch.set_num_threads(before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A pause of this computation, which leaves its share to the others."""
        self._add(-1)
        try:
            yield
        finally:
            self._add(1)

    def take_share(self) -> None:
        """Go on with the share that this computation has now."""
        if self.count:
            torch.set_num_threads(max(1, self.count // max(1, self._working)))

    def _add(self, number: int) -> None:
        with self._lock:
            self._working += number
