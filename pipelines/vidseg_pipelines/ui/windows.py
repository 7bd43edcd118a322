"""The windows of the page, and the videos that are open in them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.websockets import WebSocket

from vidseg_pipelines.ui.pictures import Pictures
from vidseg_pipelines.ui.project import Project
from vidseg_pipelines.ui.propagation import Propagation

Event = dict[str, Any]


@dataclass
class Window:
    """One browser window."""

    socket: WebSocket
    key: str | None = None
    """The clip that it shows."""
    seen: set[int] = field(default_factory=set)

    async def send(self, event: Event) -> None:
        """Tell it something; one that is gone misses it."""
        with contextlib.suppress(Exception):
            await self.socket.send_json(event)


@dataclass
class Open:
    """A clip that is open: the one window that may change it, and its run."""

    project: Project
    pictures: Pictures
    holder: Window | None = None
    run: Propagation | None = None
    task: asyncio.Task[None] | None = None
    going: asyncio.Event = field(default_factory=asyncio.Event)
    settling: asyncio.TimerHandle | None = None
    closing: asyncio.TimerHandle | None = None

    @property
    def document(self) -> Event:
        """What the user has made, and what undo and redo would do."""
        document, history = self.project.document, self.project.history
        return {
            "objects": [asdict(item) for item in document.items.values()],
            "keys": {frame: row for frame, row in document.keys.items() if row},
            "undo": history.done[-1].what if history.done else None,
            "redo": history.undone[-1].what if history.undone else None,
        }

    @property
    def progress(self) -> Event | None:
        """How far a run is; None: there is none."""
        run = self.run
        if run is None or self.task is None:
            return None
        state = "running" if self.going.is_set() else "paused"
        return {"state": state, "done": run.done, "total": run.total, "frame": run.frame}
