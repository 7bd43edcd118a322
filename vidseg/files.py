"""Which files of a folder count: the one rule for videos, frames, masks, predictions and training data.

A file counts by the ending of its name, whatever its case. Names that begin with a dot do not count (``._NAME`` of
macOS, ``.ipynb_checkpoints`` of Jupyter, ``.DS_Store``), nor do the other things that systems leave in folders.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings of images, in lower case."""

_LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r"}
)


def counts(name: str) -> bool:
    """Whether a file or folder of this name can be data: neither hidden nor left there by a system."""
    return not name.startswith((".", "~$")) and name.lower() not in _LEFT_BY_SYSTEMS


def data_files(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """Files directly in ``folder`` that count, sorted by name; with ``suffixes`` (lower case) those that end so.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    found = (path for path in folder.iterdir() if counts(path.name) and path.is_file())
    return sorted(path for path in found if suffixes is None or path.suffix.lower() in suffixes)


def data_folders(folder: Path) -> list[Path]:
    """Folders directly in ``folder`` that count, sorted by name.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    return sorted(path for path in folder.iterdir() if counts(path.name) and path.is_dir())


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that orders numbers inside names by value: ``f2`` before ``f10``."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts], name


def is_pattern(text: str) -> bool:
    """Whether ``text`` is a pattern (``*``, ``?``, ``[...]``), and not the name of something that exists."""
    return glob.has_magic(text) and not os.path.lexists(text)  # False for names that no file can have


def matches(pattern: str) -> list[str]:
    """What a pattern stands for, in natural order, as far as it counts; ``**`` stands for any number of folders.

    Folders at its beginning that exist as they are written are no patterns: ``clips [1]/*.mp4``.
    """
    parts = Path(pattern).parts
    known = 0
    while known < len(parts) and os.path.lexists(Path(*parts[: known + 1])):
        known += 1
    start = Path(*parts[:known])
    found = glob.glob(str(Path(*parts[known:])), root_dir=start, recursive=True)  # noqa: PTH207  (pathlib's differs)
    return [str(start / name) for name in sorted(found, key=natural_key) if all(map(counts, Path(name).parts))]
