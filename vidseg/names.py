"""Names that come from outside - of videos, objects, manifests - in paths and on terminals; names of partial files."""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from pathlib import Path

from vidseg.errors import UsageError

_UNSAFE = re.compile(r"[^\w.\- ]+")
_MAX_BYTES = 120
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Devices of Windows, whatever their suffix."""

_PART = re.compile(r".*\.\d+-[0-9a-f]{8}\.part", re.DOTALL)
_PART_BYTES = 200  # of the name; file systems allow 255 in all


def safe_name(text: str) -> str:
    """One file name that is safe on every file system: letters, digits, ``._-`` and spaces, at most 120 bytes.

    It never is, begins or ends a path of its own: no separators, no leading dots.
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text))
    name = name.encode()[:_MAX_BYTES].decode(errors="ignore")
    name = name.lstrip(".- ").rstrip(". ") or "video"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def printable(text: str) -> str:
    """``text`` in one line, without control characters, which could move the cursor or turn the writing direction."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def check_label(where: str, label: str) -> str:
    """The name of an object or class as it goes into files: some text in one line.

    Raises:
        UsageError: it is empty or has control characters; ``where`` says whose name it is.
    """
    if not isinstance(label, str):
        raise UsageError(f"{where}: a name expected, got {label!r}")
    if not label.strip():
        raise UsageError(f"{where}: an empty name")
    if not label.isprintable():
        raise UsageError(f"{where}: the name '{printable(label)}' has control characters")
    return label


def part_of(path: Path) -> Path:
    """A new name beside ``path`` for what is still being written: ``NAME.PID-RANDOM.part``."""
    name = path.name.encode(errors="surrogateescape")[:_PART_BYTES].decode(errors="ignore")
    return path.with_name(f"{name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def is_part(path: Path) -> bool:
    """Does ``path`` have a name of :func:`part_of`?"""
    return _PART.fullmatch(path.name) is not None
