"""Names that come from outside - of videos, objects, manifests - as parts of paths and as text on a terminal."""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = re.compile(r"[^\w.\- ]+")
_MAX_BYTES = 120
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Devices of Windows, whatever their suffix."""


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
