"""Running: objects followed from the masks of one frame through the frames after it, or before it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Literal

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.types import Frame, Prompt
from vidseg_pipelines.following import follow, merged
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.ui.lines import masks_in
from vidseg_pipelines.ui.project import Project

Direction = Literal["forward", "backward", "both"]

MEMORY_FRAMES = 4
"""Frames drawn by the user behind the start that the tracker is shown first."""


class Propagation:
    """One run, a frame per :meth:`step`. What was computed counts however it ends; it is one step to undo.

    Masks that the user drew on other frames are given to the tracker when it comes there. It sees those behind the
    start first, so that it knows what the objects look like.
    """

    def __init__(self, project: Project, frame: int, direction: Direction, only: int | None = None) -> None:
        """Plan a run from ``frame``. ``only``: follow this object, and leave the others as they are.

        Raises:
            UsageError: there is nothing to follow.
        """
        self.project, self.direction = project, direction
        self.ids = [i for i in project.results.facts.get(frame, {}) if only is None or i == only]
        if not self.ids:
            what = project.name(only) if only is not None else "object"
            raise UsageError(f"there is no {what} on this frame to follow: click on one first")
        last = project.video.count - 1
        self.start = frame
        ways: list[Direction] = ["forward", "backward"] if direction == "both" else [direction]
        self._plans = [(way, last - frame if way == "forward" else frame) for way in ways]
        self.total = sum(count for _, count in self._plans)
        if not self.total:
            raise UsageError(f"there is no frame {'after' if direction == 'forward' else 'before'} this one")
        self.done = 0
        self.frame = frame
        """The frame computed last."""
        self.skipped = 0
        """Frames that could not be read."""
        self._step = project.history.begin("run", project.document.text())
        project.seal()
        self._video = project.video.another()
        self._running = self._run()

    @property
    def damage(self) -> list[str]:
        """What reading the frames found that nobody knew."""
        return [text for text in self._video.warnings if text not in self.project.video.warnings]

    def step(self) -> bool:
        """Compute the next frame; False when there is none.

        Raises:
            FramesRenumbered: frames are missing, and those behind have other numbers.
            VidsegError: the video cannot be read any more, the disk is full.
        """
        return next(self._running, False)

    def close(self) -> None:
        """End it here."""
        self._running.close()
        self._video.close()
        self.project.settle()

    def _run(self) -> Generator[bool]:
        for way, _ in self._plans:
            backward = way == "backward"
            prompts, first = self._prompts(backward)
            steps = (
                FrameStep(f, [p for p in prompts if p.frame_index == f.index]) for f in self._frames(first, backward)
            )
            for frame, masks in follow(self.project.engine.models, self.project.info, steps, backward=backward):
                if (frame.index < self.start) if backward else (frame.index > self.start):
                    self._write(frame, masks)
                    self.done += 1
                    self.frame = frame.index
                    yield True

    def _prompts(self, backward: bool) -> tuple[list[Prompt], list[int]]:
        """Masks to start with, and those that the user drew on other frames; the frames to show first."""
        results, keys = self.project.results, self.project.document.keys
        drawn = {f: [i for i in keys[f] if i in self.ids and i in results.facts.get(f, {})] for f in keys}
        drawn = {f: ids for f, ids in drawn.items() if ids and f != self.start}
        behind = sorted((f for f in drawn if (f > self.start) == backward), reverse=backward)[-MEMORY_FRAMES:]
        ahead = [f for f in drawn if (f < self.start) == backward]
        prompts: list[Prompt] = []
        for frame, ids in [(self.start, self.ids), *((f, drawn[f]) for f in [*behind, *ahead])]:
            masks = masks_in(results.objects(frame))
            prompts += [Prompt(frame, i, mask=masks[i]) for i in ids]
        return prompts, [*behind, self.start]

    def _frames(self, first: list[int], backward: bool) -> Iterator[Frame]:
        video, before = self._video, self.start
        for index in first:
            yield video.read(index)
        rest = (
            video.backward(self.start - 1, scratch=self.project.folder)
            if backward
            else video.readable(range(self.start + 1, video.count))
        )
        for frame in rest:
            self.skipped += abs(frame.index - before) - 1
            before = frame.index
            yield frame
        self.skipped += before if backward else video.count - 1 - before

    def _write(self, frame: Frame, found: FrameMasks) -> None:
        line, names = self.project.results.line(frame.index), self.project.document.names
        masks = found if line is None else merged(parse_line(line), found, self.ids)
        labels = tuple(names.get(i) or None for i in masks.ids)
        self.project.put(self._step, frame.index, journal_line(replace(masks, labels=labels)))
