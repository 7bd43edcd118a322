"""Who looks at what: the windows of the page, the videos that are open in them, and their runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vidseg.config import RunConfig
from vidseg.errors import UsageError, VidsegError
from vidseg.names import printable
from vidseg_pipelines.ui.engine import PageEngine
from vidseg_pipelines.ui.library import Library, LibraryVideo
from vidseg_pipelines.ui.page_video import FramesRenumbered, PageVideo
from vidseg_pipelines.ui.pictures import Pictures
from vidseg_pipelines.ui.project import Project
from vidseg_pipelines.ui.propagation import Direction, Propagation
from vidseg_pipelines.ui.windows import Event, Open, Window

T = TypeVar("T")

_EVERY_S = 0.1  # seconds between two reports of a run
_SETTLE_S = 3.0  # seconds after the last change
_END_S = 6.0  # seconds that closing may wait for what is being computed
_CLOSE_S = 60.0  # seconds after nobody looks any more


class Desk:
    """All that happens between the windows and the projects. What computes runs in one thread, one thing at a time."""

    def __init__(self, library: Library, engine: PageEngine, config: RunConfig) -> None:
        self.library, self.engine, self.config = library, engine, config
        self.windows: list[Window] = []
        self.open: dict[str, Open] = {}
        self.hung = False
        """At the end something was still being computed: what it had given before is saved."""
        self._work = ThreadPoolExecutor(1, "vidseg-ui-work")
        self._opening = asyncio.Lock()
        self._loading = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def work(self, call: Callable[[], T]) -> T:
        """The result of what computes or writes."""
        return await asyncio.get_running_loop().run_in_executor(self._work, call)

    async def load(self) -> None:
        """Load the networks, where nobody has; the windows say so meanwhile.

        Raises:
            VidsegError: weights are missing or wrong.
        """
        if self.engine.ready:
            return
        self._loading += 1
        try:
            await self._tell_loading()
            await self.work(lambda: self.engine.models)
        finally:
            self._loading -= 1
            await self._tell_loading()

    async def _tell_loading(self) -> None:
        for window in list(self.windows):
            await window.send({"type": "loading", "now": self._loading > 0})

    def later(self, job: Any) -> None:
        """Run a coroutine beside everything else."""
        task = asyncio.ensure_future(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def show(self, window: Window, key: str) -> None:
        """Open a clip in a window."""
        clip = self.library.find(key)
        async with self._opening:
            if clip.key not in self.open:
                self.open[clip.key] = await asyncio.to_thread(self._opened, clip)
            opened = self.open[clip.key]
            await self.leave(window)
            window.key, window.seen = clip.key, set()
        if opened.holder is None:
            opened.holder = window
        await self.tell_state(window)

    def _opened(self, clip: LibraryVideo) -> Open:
        project = Project(clip, self.engine, self.config)
        try:
            return Open(project, Pictures(project.video.another()))
        except BaseException:
            project.close()
            raise

    async def take_over(self, window: Window) -> None:
        """Let a window change what another one did until now."""
        opened = self.of(window)
        opened.holder = window
        for other in self.windows:
            if other.key == window.key:
                await other.send({"type": "holder", "mine": other is window})

    async def renumber(self, opened: Open, video: PageVideo) -> None:
        """Frames are missing in the middle: everybody takes the numbers that ``video`` found."""
        await self.stop(opened)
        if opened.project.video.times == video.times:
            return
        await self.work(lambda: opened.project.renumber(video.another()))
        pictures, opened.pictures = opened.pictures, Pictures(opened.project.video.another())
        await pictures.close()
        for window in [w for w in self.windows if w.key == opened.project.clip.key]:
            window.seen.clear()
            await self.tell_state(window)

    async def leave(self, window: Window) -> None:
        """A window does not show its clip any more; its run goes on."""
        opened = self.open.get(window.key or "")
        window.key = None
        if opened is None:
            return
        key = opened.project.clip.key
        others = [other for other in self.windows if other.key == key]
        if opened.holder is window:
            opened.holder = others[0] if others else None
            if others:
                await others[0].send({"type": "holder", "mine": True})
        if not others:
            if opened.task is None:
                await self.work(opened.project.settle)
            opened.closing = asyncio.get_running_loop().call_later(_CLOSE_S, lambda: self.later(self._close(opened)))

    def of(self, window: Window) -> Open:
        """What a window shows.

        Raises:
            UsageError: nothing.
        """
        if window.key is None or window.key not in self.open:
            raise UsageError("open a video first")
        return self.open[window.key]

    def held(self, window: Window) -> Open:
        """What a window shows and may change.

        Raises:
            UsageError: another window does.
        """
        opened = self.of(window)
        if opened.holder is not window:
            raise UsageError("this video is open in another window, which may change it: take over first")
        return opened

    async def tell(self, opened: Open, event: Event) -> None:
        """Tell all windows that show a clip."""
        for window in [w for w in self.windows if w.key == opened.project.clip.key]:
            await window.send(event)

    async def tell_state(self, window: Window) -> None:
        """Everything about a clip, to a window that just opened it; the marks when the thread that works is free."""
        opened = self.of(window)
        project = opened.project
        info = project.info
        await window.send(
            {
                "type": "clip",
                "key": project.clip.key,
                "frames": project.video.count,
                "width": info.width,
                "height": info.height,
                "fps": float(info.fps),
                "folder": str(project.folder),
                "warnings": [printable(text) for text in project.video.warnings[:5]],
                "mine": opened.holder is window,
                "loading": self._loading > 0,
                **opened.document,
                "run": opened.progress,
            }
        )
        marks = await self.work(lambda: project.marks(project.results.frames))
        await window.send({"type": "marks", "marks": marks})

    async def tell_changes(self, opened: Open) -> None:
        """What changed since the last time; the journal is brought in order when it is quiet."""
        project = opened.project
        frames = sorted(project.changed)
        project.changed.clear()
        around = sorted({*frames, *(f + 1 for f in frames if f + 1 in project.results.facts)})
        marks = await self.work(lambda: project.marks(around))
        await self.tell(opened, {"type": "changed", "frames": frames, "marks": marks, **opened.document})
        if opened.settling is not None:
            opened.settling.cancel()
        if opened.task is None:
            opened.settling = asyncio.get_running_loop().call_later(_SETTLE_S, lambda: self.later(self._settle(opened)))

    async def start(self, opened: Open, frame: int, direction: Direction, only: int | None) -> None:
        """Run from a frame; a run that is paused ends where it is."""
        await self.stop(opened)
        await self.load()
        opened.run = await self.work(lambda: Propagation(opened.project, frame, direction, only))
        opened.going.set()
        opened.task = asyncio.ensure_future(self._run(opened, opened.run))

    async def stop(self, opened: Open) -> None:
        """End a run; what it computed stays."""
        if opened.task is not None:
            opened.going.set()
            opened.task.cancel()
            await asyncio.wait([opened.task])

    async def close(self) -> None:
        """Save and close everything; within bounded time, whatever is being computed."""
        try:
            await asyncio.wait_for(self._close_all(), _END_S)
        except TimeoutError:
            self.hung = True
        self._work.shutdown(wait=False, cancel_futures=True)

    async def _close_all(self) -> None:
        self.windows.clear()
        for opened in self.open.values():
            await self.stop(opened)
        for task in list(self._tasks):
            task.cancel()
        for opened in list(self.open.values()):
            await self._close(opened)

    async def _close(self, opened: Open) -> None:
        """Give a clip and its folder back, when no window shows it and nothing runs (or all is closed)."""
        key = opened.project.clip.key
        async with self._opening:
            if opened.task is not None or self._watched(key) or self.open.get(key) is not opened:
                return
            del self.open[key]
            for timer in (opened.settling, opened.closing):
                if timer is not None:
                    timer.cancel()
            try:
                await self.work(opened.project.close)
            except VidsegError as error:
                logging.getLogger(__name__).error("%s", error)
            await opened.pictures.close()

    def _watched(self, key: str) -> bool:
        return any(window.key == key for window in self.windows)

    async def _run(self, opened: Open, run: Propagation) -> None:
        loop = asyncio.get_running_loop()
        event: Event = {"type": "run", "state": "done"}
        told, renumbered = 0.0, None
        try:
            while await self.work(run.step):
                if loop.time() - told > _EVERY_S or not opened.going.is_set():
                    told = loop.time()
                    await self.tell(opened, {"type": "run", **(opened.progress or {})})
                    await self.tell_changes(opened)
                if not opened.going.is_set():
                    await self.work(opened.project.settle)
                    await opened.going.wait()
        except asyncio.CancelledError:
            event["state"] = "cancelled"
        except VidsegError as error:
            event |= {"state": "failed", "text": printable(str(error))}
            renumbered = error.video if isinstance(error, FramesRenumbered) else None
        except Exception as error:
            logging.getLogger(__name__).exception("a run failed")
            event |= {"state": "failed", "text": printable(f"{type(error).__name__}: {error}")}
        try:
            await self.work(run.close)
        except VidsegError as error:
            event |= {"state": "failed", "text": printable(str(error))}
        damage = run.damage if renumbered is None else []
        opened.project.video.warnings += damage
        event["warnings"] = [printable(text) for text in damage[:5]]
        opened.task = opened.run = None
        if not self._watched(opened.project.clip.key):
            opened.closing = loop.call_later(_CLOSE_S, lambda: self.later(self._close(opened)))
        event |= {"done": run.done, "total": run.total, "skipped": run.skipped, "frame": run.frame}
        await self.tell(opened, event)
        await self.tell_changes(opened)
        if renumbered is not None:
            await self.renumber(opened, renumbered)

    async def prepare(self, opened: Open, frame: int) -> None:
        """Encode a frame that is looked at, so that the first click is quick; not while a run needs the networks."""
        if opened.task is None or not opened.going.is_set():
            project = opened.project
            with contextlib.suppress(VidsegError):
                await self.load()
                await self.work(lambda: self.engine.prepare(project.clip.key, project.video.read(frame)))

    async def _settle(self, opened: Open) -> None:
        try:
            await self.work(opened.project.settle)
            await self.tell(opened, {"type": "saved"})
        except VidsegError as error:
            await self.tell(opened, {"type": "error", "text": printable(str(error))})
