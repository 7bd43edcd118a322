"""What the name of an input stands for - a file, an object, a camera, a stream - and what of it may be shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from vidseg.errors import InputError
from vidseg.storage import OBJECTS, object_url

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps")
"""Schemes of remote inputs. An input is remote only when it begins with one of them."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CAMERA = re.compile(r"(?:camera:|/dev/video)(\d+)")
_SECRET_IN_PATH = re.compile(r"(?i)\b((?:user|pass|pwd|pw|token|key|secret|auth|sig)\w*=)[^/]*")
_HIDDEN = "***"


@dataclass(frozen=True)
class Address:
    """An input, understood. ``shown`` is fit for messages and files; ``url`` may hold a password."""

    kind: Literal["file", "stdin", "camera", "stream", "object"]
    """``object``: a file in object storage, which is read as a whole copy."""
    url: str = field(repr=False)
    """The path, ``-``, the device, or the URL."""
    shown: str
    name: str
    """One path component for folders: the file's stem, the folder's name, ``stdin``, ``camera0``, or from the URL."""

    @property
    def scheme(self) -> str:
        """Scheme of a stream in small letters; empty for other inputs."""
        return self.url.partition(":")[0] if self.kind == "stream" else ""


def parse_address(text: str) -> Address:
    """Read the name of an input. Nothing is opened.

    Raises:
        InputError: a scheme that is not among :data:`SCHEMES`, a stream without a host, a camera without a number.
    """
    if text == "-":
        return Address("stdin", text, "standard input", "stdin")
    camera = _CAMERA.fullmatch(text)
    if camera:
        return Address("camera", f"/dev/video{camera[1]}", text, f"camera{camera[1]}")
    if text.startswith("camera:"):
        raise InputError(f"{text}: no camera number: camera:0, camera:1, ...")
    url = _URL.fullmatch(text)
    if url is None or os.path.exists(text):  # noqa: PTH110  (False for names that no file can have)
        return Address("file", text, text, _file_name(text))
    shown, scheme = redact(text), url[1].lower()
    if stored := object_url(text):
        return Address("object", stored, shown, _stream_name(shown, "object"))
    if scheme not in SCHEMES:
        raise InputError(
            f"{shown}: no such file, and '{scheme}://' is not a stream: allowed are {', '.join(SCHEMES + OBJECTS)}"
        )
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise InputError(f"{shown}: a stream without a host")
    return Address("stream", f"{scheme}://{url[2]}", shown, _stream_name(shown, host))


def redact(text: str) -> str:
    """A URL without what may be secret; other texts as they are.

    User and password go, also those with characters that belong encoded, and so do the values of a query, the fragment,
    parts of the path such as ``password=...``, and the last part of an RTMP path, which is a stream key.
    """
    url = _URL.fullmatch(text)
    if url is None:
        return text
    scheme, rest = url[1], url[2]
    user, at, rest = rest.rpartition("@")
    rest, hash_mark, _ = rest.partition("#")
    rest, question_mark, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    path = _SECRET_IN_PATH.sub(rf"\1{_HIDDEN}", path)
    if scheme.lower().startswith("rtmp") and "/" in path:
        path = f"{path.rpartition('/')[0]}/{_HIDDEN}"
    query = "&".join(f"{key}={_HIDDEN}" if equals else _HIDDEN for key, equals, _ in _pairs(query))
    start = f"{scheme}://{_HIDDEN if user else ''}{at}{host}{slash}{path}"
    return start + question_mark + query + (f"#{_HIDDEN}" if hash_mark else "")


def _file_name(text: str) -> str:
    if not os.path.exists(text):  # noqa: PTH110
        return "video"
    file = Path(text).resolve()
    return (file.name if file.is_dir() else file.stem) or "video"


def _pairs(query: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in query.split("&")] if query else []


def _stream_name(shown: str, host: str) -> str:
    """The last part of the path that is not hidden, else the host."""
    parts = [part for part in urlsplit(shown).path.split("/") if part and _HIDDEN not in part]
    name = re.sub(r"[^\w.-]+", "_", Path(parts[-1]).stem if parts else host).strip("._")
    return name[:100] or "stream"
