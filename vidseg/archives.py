"""Archives are refused, never unpacked: this says what a file is by its first bytes."""

from __future__ import annotations

HEAD_BYTES = 512
"""How much of a file :func:`archive_kind` wants to see."""

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_TAR_PLACE, _TAR_MAGIC = 257, b"ustar"


def archive_kind(head: bytes) -> str:
    """``"zip"``, ``"tar"``, ...: what a file is that begins with ``head``; empty when it is no archive."""
    if head[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return "tar"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
