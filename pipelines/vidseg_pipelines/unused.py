"""Prompts that wait for their frames: none is dropped without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vidseg.types import Frame, Prompt

_SHOWN = 8


class UnusedPrompts:
    """The prompts whose frames have not come yet."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._waiting: dict[int, set[int]] = {}  # frame index to object ids
        for prompt in prompts:
            self._waiting.setdefault(prompt.frame_index, set()).add(prompt.object_id)

    def watch(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass ``frames`` on."""
        for frame in frames:
            self._waiting.pop(frame.index, None)
            yield frame

    def warnings(self) -> list[str]:
        """One line about the prompts that still wait, if any do."""
        if not self._waiting:
            return []
        ids = set[int]().union(*self._waiting.values())
        return [
            f"prompts of object {_listed(ids)} were not used: the input gave no frame {_listed(self._waiting.keys())}"
        ]


def _listed(numbers: Iterable[int]) -> str:
    first, *rest = sorted(numbers)
    return ", ".join(map(str, [first, *rest[: _SHOWN - 1]])) + (", ..." if len(rest) >= _SHOWN else "")
