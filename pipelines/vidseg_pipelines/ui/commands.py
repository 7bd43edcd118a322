"""What a window may ask for, by the field ``do`` of its messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from vidseg.errors import UsageError
from vidseg_pipelines.ui.desk import Desk
from vidseg_pipelines.ui.project import Finish, Project
from vidseg_pipelines.ui.windows import Window
from vidseg_pipelines.web.exports import export

Message = Mapping[str, Any]
_PAUSE_S = 0.15
_DIRECTIONS = ("forward", "backward", "both")


async def answer(desk: Desk, window: Window, message: Message) -> None:
    """Do what a message asks for.

    Raises:
        VidsegError: why it cannot be done.
        ValueError, LookupError, TypeError: the message is malformed.
    """
    action = _ACTIONS.get(str(message["do"]))
    if action is None:
        raise UsageError(f"unknown request {str(message['do'])[:40]!r}")
    await action(desk, window, message)


async def _list(desk: Desk, window: Window, message: Message) -> None:
    await window.send({"type": "clips", "clips": [clip.key for clip in desk.library.clips()]})


async def _open(desk: Desk, window: Window, message: Message) -> None:
    await desk.show(window, str(message["key"]))


async def _take(desk: Desk, window: Window, message: Message) -> None:
    await desk.take_over(window)


async def _look(desk: Desk, window: Window, message: Message) -> None:
    """The window stays on a frame."""
    opened = desk.of(window)
    if opened.holder is window:
        desk.later(desk.prepare(opened, int(message["frame"])))


async def _hints(desk: Desk, window: Window, message: Message) -> None:
    project = desk.of(window).project
    if "seen" in message:
        window.seen.add(int(message["seen"]))
    found = await desk.work(lambda: project.hints(window.seen))
    if not found and window.seen:
        window.seen.clear()  # all were looked at: from the start
        found = await desk.work(lambda: project.hints(()))
    rows = [{"frame": h.frame, "id": h.object_id, "doubt": round(h.doubt, 3), "why": h.why} for h in found]
    await window.send({"type": "hints", "hints": rows})


async def _draw(desk: Desk, window: Window, message: Message) -> None:
    """Clicks, boxes: a quick answer, then a better one."""
    opened = desk.held(window)
    project, frame, given = opened.project, int(message["frame"]), message.get("id")

    def quick() -> tuple[int, Finish]:
        if message["do"] == "box":
            return project.box(frame, given, map(float, message["box"]))
        return project.click(frame, given, float(message["x"]), float(message["y"]), positive=bool(message["positive"]))

    await desk.load()
    object_id, finish = await desk.work(quick)
    await window.send({"type": "drawn", "id": object_id, "frame": frame})
    await desk.tell_changes(opened)

    async def better() -> None:
        await asyncio.sleep(_PAUSE_S)  # who clicks again at once need not wait for it
        if await desk.work(finish):
            await desk.tell_changes(opened)
        await window.send({"type": "refined", "frame": frame})

    desk.later(better())


async def _stroke(desk: Desk, window: Window, message: Message) -> None:
    opened = desk.held(window)
    points = [(float(x), float(y)) for x, y in message["points"]]
    frame, radius, erase = int(message["frame"]), float(message["radius"]), bool(message["erase"])
    object_id = await desk.work(lambda: opened.project.paint(frame, message.get("id"), points, radius, erase=erase))
    await window.send({"type": "drawn", "id": object_id, "frame": frame})
    await desk.tell_changes(opened)


def _edit(change: Callable[[Project, Message], Any]) -> Callable[[Desk, Window, Message], Awaitable[None]]:
    async def action(desk: Desk, window: Window, message: Message) -> None:
        opened = desk.held(window)
        await desk.work(lambda: change(opened.project, message))
        await desk.tell_changes(opened)

    return action


def _back(name: str) -> Callable[[Desk, Window, Message], Awaitable[None]]:
    async def action(desk: Desk, window: Window, message: Message) -> None:
        opened = desk.held(window)
        if opened.task is not None:
            await desk.stop(opened)
        done = await desk.work(lambda: getattr(opened.project, name)())
        if done is None:
            raise UsageError(f"there is nothing to {name}")
        await desk.tell_changes(opened)

    return action


async def _run(desk: Desk, window: Window, message: Message) -> None:
    opened = desk.held(window)
    direction = message["direction"]
    if direction not in _DIRECTIONS:
        raise UsageError(f"direction {str(direction)[:20]!r}: allowed are {', '.join(_DIRECTIONS)}")
    await desk.start(opened, int(message["frame"]), direction, message.get("only"))
    await desk.tell_changes(opened)


async def _pause(desk: Desk, window: Window, message: Message) -> None:
    opened = desk.held(window)
    if opened.going.is_set():
        opened.going.clear()
    else:
        opened.going.set()


async def _cancel(desk: Desk, window: Window, message: Message) -> None:
    await desk.stop(desk.held(window))


async def _export(desk: Desk, window: Window, message: Message) -> None:
    opened = desk.of(window)
    name = str(message["format"])

    async def make() -> None:
        event: dict[str, Any] = {"type": "export", "format": name}
        try:
            await desk.work(opened.project.settle)
            path = await export(opened.project.folder, opened.project.clip.path, name)
            event["file"] = path.name
        except Exception as error:
            event["error"] = str(error)
        with contextlib.suppress(Exception):
            await window.send(event)

    desk.later(make())


_ACTIONS: dict[str, Callable[[Desk, Window, Message], Awaitable[None]]] = {
    "list": _list,
    "open": _open,
    "take": _take,
    "look": _look,
    "hints": _hints,
    "click": _draw,
    "box": _draw,
    "stroke": _stroke,
    "clear": _edit(lambda project, m: project.clear(int(m["frame"]), int(m["id"]))),
    "remove": _edit(lambda project, m: project.remove(int(m["id"]))),
    "rename": _edit(lambda project, m: project.rename(int(m["id"]), str(m["name"]))),
    "recolor": _edit(lambda project, m: project.recolor(int(m["id"]), str(m["color"]))),
    "undo": _back("undo"),
    "redo": _back("redo"),
    "run": _run,
    "pause": _pause,
    "cancel": _cancel,
    "export": _export,
}
