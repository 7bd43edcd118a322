"""Which files of a folder count: the one rule for frames, masks, predictions and training data.

A file counts by the ending of its name, whatever its case. Names that begin with a dot do not count (``._NAME`` of
macOS, ``.ipynb_checkpoints`` of Jupyter, ``.DS_Store``), nor do the other things that systems leave in folders.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings of pictures, in lower case."""

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
