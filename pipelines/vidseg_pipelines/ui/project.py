"""One video on the page: its frames, its run folder, and what the user does to the masks of a frame."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.config import RunConfig
from vidseg.errors import UsageError, VidsegError
from vidseg.masks.overlap import in_front
from vidseg.masks.trust import Signals
from vidseg.outputs.folder import claimed
from vidseg.types import Frame, Prompt
from vidseg_pipelines.ui import trust
from vidseg_pipelines.ui.document import Document, load_document
from vidseg_pipelines.ui.engine import PageEngine
from vidseg_pipelines.ui.history import History, HistoryStep, Lines
from vidseg_pipelines.ui.library import LibraryVideo
from vidseg_pipelines.ui.lines import Mask, line_of, masks_in, signals_in, stroke
from vidseg_pipelines.ui.page_video import PageVideo
from vidseg_pipelines.web.manifest import keep_manifest
from vidseg_pipelines.web.results import Results

Finish = Callable[[], bool]
"""Draws again what was drawn quickly, slower and better; False where it does not count any more."""


class Project:
    """A video that is open. All calls that change something come from one thread."""

    def __init__(self, clip: LibraryVideo, engine: PageEngine, config: RunConfig) -> None:
        """Open video and run folder, which this process then holds.

        Raises:
            InputError: the video or the journal cannot be read. UsageError: another process uses the folder.
            OutputError: the folder cannot be written.
        """
        self.clip, self.engine = clip, engine
        self.config = replace(config, input=str(clip.path), output=clip.run)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.video = PageVideo(clip.path)
            stack.callback(lambda: self.video.close())
            stack.enter_context(claimed(clip.run))
            self.history = History(clip.run)
            stack.callback(self.history.close)
            self.results = Results(clip.run)
            stack.callback(self.results.close)
            if seen := self.results.frames:
                self.video.check(seen[-1], self.results.time(seen[-1]))
            self.history.mark()
            self._stack = stack.pop_all()
        self.info = replace(self.video.info, frame_count=self.video.count)
        self.document = load_document(clip.run)
        self.document.ensure(*self.results.objects_known())
        self.changed: set[int] = set()
        """Frames whose result changed since somebody asked."""
        self._named = self.document.names
        self._edits = 0
        self._touched = False

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.clip.run

    def name(self, object_id: int) -> str:
        """What an object is called in sentences."""
        item = self.document.items.get(object_id)
        return item.name if item is not None and item.name else f"object {object_id}"

    def click(self, frame: int, object_id: int | None, x: float, y: float, *, positive: bool) -> tuple[int, Finish]:
        """A click on an object, or on what is none of it; without an id on a new one."""
        _finite(x, y)
        if object_id is None and not positive:
            raise UsageError("a right click takes away from an object: select one first")
        prompt = Prompt(frame, object_id or 1, points=((x, y),), point_labels=(int(positive),))
        return self._draw(frame, object_id, prompt, "points", [x, y, int(positive)])

    def box(self, frame: int, object_id: int | None, corners: Iterable[float]) -> tuple[int, Finish]:
        """A box around an object; without an id around a new one."""
        x1, y1, x2, y2 = corners
        _finite(x1, y1, x2, y2)
        low_x, high_x, low_y, high_y = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        if high_x - low_x < 2 or high_y - low_y < 2:
            raise UsageError("this box is too small: drag a larger one")
        box = max(0.0, low_x), max(0.0, low_y), min(high_x, self.info.width), min(high_y, self.info.height)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise UsageError("this box lies outside the picture")
        return self._draw(frame, object_id, Prompt(frame, object_id or 1, box=box), "boxes", list(box))

    def paint(
        self, frame: int, object_id: int | None, points: list[tuple[float, float]], radius: float, *, erase: bool
    ) -> int:
        """A stroke that adds to an object, or takes away from it; without an id a new one. Gives the id."""
        _finite(radius, *(v for point in points for v in point))
        if not points or len(points) > 100_000 or radius > 2000:
            raise UsageError("this stroke cannot be drawn")
        if object_id is None and erase:
            raise UsageError("the eraser takes away from an object: select one first")
        picture = self.video.read(frame)
        masks = masks_in(self.results.objects(frame))
        drawn = stroke(picture.hw, points, radius)
        if not drawn.any():
            raise UsageError("this stroke lies outside the picture")
        with self.step("eraser" if erase else "brush") as step:
            object_id = self.document.new() if object_id is None else self.document.known(object_id).id
            old = masks.get(object_id, np.zeros(picture.hw, np.bool_))
            self._note_key(frame, object_id, "strokes", 1)
            self._show(step, picture, in_front(masks, object_id, old & ~drawn if erase else old | drawn), object_id)
        return object_id

    def clear(self, frame: int, object_id: int) -> None:
        """Take an object from one frame."""
        self.document.known(object_id)
        with self.step("clear on frame") as step:
            masks = masks_in(self.results.objects(frame))
            masks.pop(object_id, None)
            self.document.keys.get(frame, {}).pop(object_id, None)
            self._show(step, self.video.read(frame), masks)

    def remove(self, object_id: int) -> None:
        """Take an object from all frames."""
        name = self.name(self.document.known(object_id).id)
        with self.step(f"remove {name}") as step:
            for frame in [f for f, facts in self.results.facts.items() if object_id in facts]:
                masks = masks_in(self.results.objects(frame))
                del masks[object_id]
                self._show(step, self.video.read(frame), masks)
            for row in self.document.keys.values():
                row.pop(object_id, None)
            del self.document.items[object_id]

    def rename(self, object_id: int, name: str) -> None:
        """Name an object."""
        with self.step("rename"):
            self.document.rename(object_id, name)

    def recolor(self, object_id: int, color: str) -> None:
        """Colour an object, as ``#rrggbb``."""
        if len(color) != 7 or color[0] != "#" or any(c not in "0123456789abcdef" for c in color[1:].lower()):
            raise UsageError(f"colour {color[:20]!r}: #rrggbb expected")
        with self.step("colour"):
            self.document.known(object_id).color = color.lower()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[HistoryStep]:
        """A step that can be undone. Where it fails, everything is as before."""
        self._edits += 1
        before = self.document.text()
        step = self.history.begin(what, before)
        try:
            yield step
        except BaseException:
            self.history.drop(step)
            self.document = Document.of(before)
            raise
        self.seal()

    def seal(self) -> None:
        """Save the document as it is after a step."""
        self.document.save(self.folder)
        self.touch()

    def touch(self) -> None:
        """The folder now holds what the page made."""
        if not self._touched:
            self._touched = True
            keep_manifest(self.folder, self.config, self.info, self.results, self.video.warnings)

    def undo(self) -> str | None:
        """Take the last step back; gives its name."""
        step = self.history.undo(self.document.text(), self.results.line, self._restore)
        return step.what if step else None

    def redo(self) -> str | None:
        """Do again what was undone last; gives its name."""
        step = self.history.redo(self.document.text(), self.results.line, self._restore)
        return step.what if step else None

    def put(self, step: HistoryStep | None, frame: int, line: bytes | None) -> None:
        """Replace the line of a frame as a part of a step."""
        old = self.results.line(frame)
        if old == line:
            return
        if step is not None:
            self.history.note(step, frame, old)
        self.results.put(frame, line)
        self.changed.add(frame)

    def renumber(self, video: PageVideo) -> None:
        """Go on with a reader that knows the right numbers of the frames; results stay with their frames.

        Raises:
            OutputError: they cannot be written.
        """
        self.settle()
        self.video.close()
        self.video = video
        self.info = replace(video.info, frame_count=video.count)
        self.engine.forget()
        moved = self.results.renumber({time: place for place, time in enumerate(video.times)})
        self.document.keys = {moved[frame]: row for frame, row in self.document.keys.items() if frame in moved}
        self.history.clear()  # its lines have the old numbers
        self._edits += 1
        if self._touched or moved:
            self.seal()
        self.history.mark()

    def settle(self) -> None:
        """Bring the journal in order, with the names that objects have now, and the manifest up to date."""
        names = self.document.names
        renamed = names != self._named
        self.results.settle(names if renamed else None)
        self._named = names
        self.history.mark()
        if self._touched:
            keep_manifest(self.folder, self.config, self.info, self.results, self.video.warnings)

    def close(self) -> None:
        """Save everything and give the folder back."""
        try:
            self.settle()
        finally:
            self._stack.close()

    def marks(self, frames: Iterable[int]) -> dict[int, dict[int, int]]:
        """By frame and object: how far the result can be trusted, see :func:`trust.mark`."""
        facts = self.results.facts
        found: dict[int, dict[int, int]] = {}
        for frame in frames:
            now, before = facts.get(frame, {}), facts.get(frame - 1, {})
            drawn = self.document.keys.get(frame, {})
            found[frame] = {i: trust.mark(before.get(i), now[i], drawn=i in drawn) for i in now}
        return found

    def hints(self, seen: Iterable[int]) -> list[trust.Hint]:
        """Where to look next."""
        drawn = [frame for frame, row in self.document.keys.items() if row]
        return trust.hints(self.results.facts, self.results.objects, drawn, list(seen), self.name)

    def _draw(
        self, frame: int, object_id: int | None, prompt: Prompt, kind: str, said: list[float]
    ) -> tuple[int, Finish]:
        picture = self.video.read(frame)
        shown = masks_in(self.results.objects(frame))
        self._check_inside(prompt)
        with self.step("click" if kind == "points" else "box") as step:
            object_id = self.document.new() if object_id is None else self.document.known(object_id).id
            prompt = replace(prompt, object_id=object_id)
            mask = self.engine.draw(self.clip.key, picture, prompt, shown, "never")
            self._note_key(frame, object_id, kind, said)
            self._show(step, picture, in_front(shown, object_id, mask), object_id)
        return object_id, partial(self._finish, step, self._edits, picture, prompt, shown)

    def _finish(self, step: HistoryStep, edits: int, picture: Frame, prompt: Prompt, shown: dict[int, Mask]) -> bool:
        if edits != self._edits or not self.history.done or self.history.done[-1] is not step:
            return False
        try:
            mask = self.engine.draw(self.clip.key, picture, prompt, shown, "auto")
        except VidsegError:
            return False  # what was drawn quickly stays
        self._show(step, picture, in_front(shown, prompt.object_id, mask), prompt.object_id)
        return True

    def _show(self, step: HistoryStep, picture: Frame, masks: dict[int, Mask], drawn: int | None = None) -> None:
        signals = signals_in(self.results.objects(picture.index))
        if drawn is not None:
            signals[drawn] = Signals(since=0)
        scores = {i: fact.score for i, fact in self.results.facts.get(picture.index, {}).items()}
        self.put(step, picture.index, line_of(picture, masks, scores, self.document.names, signals))

    def _note_key(self, frame: int, object_id: int, kind: str, said: Any) -> None:
        self.document.keys.setdefault(frame, {}).setdefault(object_id, {}).setdefault(kind, []).append(said)

    def _restore(self, text: str, lines: Lines) -> None:
        self._edits += 1
        self.touch()
        for frame, line in lines:
            self.put(None, frame, line)
        self.document = Document.of(text)
        self.document.save(self.folder)

    def _check_inside(self, prompt: Prompt) -> None:
        for x, y in prompt.points:
            if not (0 <= x < self.info.width and 0 <= y < self.info.height):
                raise UsageError("this click lies outside the picture")


def _finite(*values: float) -> None:
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise UsageError("positions must be numbers")
