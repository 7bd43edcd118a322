"""Which data is for training, which for choosing and which only for measuring."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidseg.datasets.pairs import Item
from vidseg.files import data_folders


def dev_clips(root: Path) -> tuple[str, ...]:
    """Names of the development third of the clips below ``root``: every third in sorted order, from the first on."""
    return tuple([path.name for path in data_folders(root)][::3])


def shows_clip(stem: str, clips: Iterable[str]) -> bool:
    """Whether the still image ``<source>_<clip>-<frame>`` is a frame of one of ``clips``."""
    name = stem.partition("_")[2]
    return any(name.startswith(f"{clip}-") for clip in clips)


def held_out(name: str, percent: int) -> bool:
    """Whether a training image is set aside for choosing between runs: a stable ``percent`` of all names."""
    return zlib.crc32(name.encode()) % 100 < percent


def keep_for_validation(items: Sequence[Item], percent: int) -> list[Item]:
    """A stable ``percent`` of the items, at least one and never all."""
    kept = [item for item in items if held_out(item.name, percent)]
    return kept[: len(items) - 1] or list(items[:1] if len(items) > 1 else ())
