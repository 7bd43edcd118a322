"""Prompts that wait for their frames: none is dropped without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vidseg.types import Frame, Prompt

_SHOWN = 8


class UnusedPrompts:
    """The prompts, and removals of objects (id to frame), whose frames have not come yet."""

    def __init__(self, prompts: Sequence[Prompt], removals: Mapping[int, int] | None = None) -> None:
        self._waiting: dict[int, set[int]] = {}  # frame index to object ids
        for prompt in prompts:
            self._waiting.setdefault(prompt.frame_index, set()).add(prompt.object_id)
        self._removals = dict(removals or {})
        self._last = -1

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass ``frames`` on."""
        for frame in frames:
            self._waiting.pop(frame.index, None)
            self._last = frame.index
            yield frame

    def warnings(self) -> list[str]:
        """A line about the prompts that still wait, and one about each object that was to be removed later."""
        late = [
            f"--remove {i}@{frame} was not used: the input gave no frame {frame}"
            for i, frame in self._removals.items()
            if frame > self._last
        ]
        if not self._waiting:
            return late
        ids = set[int]().union(*self._waiting.values())
        frames = _listed(self._waiting.keys())
        return [f"prompts of object {_listed(ids)} were not used: the input gave no frame {frames}", *late]


def _listed(numbers: Iterable[int]) -> str:
    first, *rest = sorted(numbers)
    return ", ".join(map(str, [first, *rest[: _SHOWN - 1]])) + (", ..." if len(rest) >= _SHOWN else "")
