"""Object storage and web servers by URL, through fsspec: objects are read and written whole, checked, and tried again.

``s3://``, ``gs://`` and ``az://`` are read and written, ``http://`` and ``https://`` are read. S3 needs the extra
``cloud``, and so do the others. Keys, endpoints and more are found where each of these libraries looks for them: the
environment, the files of its own command line, and ``~/.config/fsspec``.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from vidseg.errors import InputError, OutputError, UsageError, VidsegError

OBJECTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Schemes of object storage."""
_URL = re.compile(r"(s3a?|gs|gcs|az|abfss?|https?):/{1,2}([^/].*)", re.DOTALL)
_ATTEMPTS = 4
_PAUSE_S = 0.25
_PATIENCE_S = 60.0
"""Seconds after which no further attempt begins."""
_BLOCK = 16 << 20
_TIMES = ("LastModified", "last_modified", "updated", "mtime")
_VERSIONS = ("size", "ETag", "etag", "md5Hash", "generation", *_TIMES)
"""What file systems call the parts of an object's description that change with its content."""
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError, ImportError)
_NOWHERE = logging.NullHandler()
"""Where gcsfs logs the tracebacks of errors that it also raises."""
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 20, "retries": {"max_attempts": 2}}

T = TypeVar("T")


class ObjectPath(PurePosixPath):
    """A path whose text is the URL: what a result on object storage is called."""

    def __str__(self) -> str:
        """With both slashes."""
        return url_of(super().__str__()) or super().__str__()


def url_of(path: str | PurePath) -> str | None:
    """The URL that a path is, also one of which :class:`pathlib.Path` dropped a slash; None: a file here."""
    match = _URL.fullmatch(str(path))
    return match and f"{match[1]}://{match[2]}"


def object_url(path: str | PurePath | None) -> str | None:
    """The URL of object storage that a path is, without a slash at its end; None: anything else."""
    url = None if path is None else url_of(path)
    return url.rstrip("/") if url and url.partition(":")[0] in OBJECTS else None


@dataclass(frozen=True)
class Described:
    """What storage says of an object; ``version`` is another text when its content is another."""

    size: int | None
    version: str
    modified: float | None
    """Seconds since 1970, by the clock of the storage."""


class Storage:
    """The objects below ``url``, by name; the name "" is the object ``url`` itself.

    All calls are tried again when they fail: a network is expected to. An :class:`InputError` says what could not be
    read, an :class:`OutputError` what could not be written.
    """

    def __init__(self, url: str, attempts: int = _ATTEMPTS) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: the extra that reads such a URL is not installed.
        """
        self.url, self._attempts = url, attempts
        self._files, self._root = _filesystem(url)

    def describe(self, name: str = "") -> Described | None:
        """An object, or None where there is none."""
        try:
            found = self._again(InputError, name, lambda: self._files.info(self._path(name)))
        except FileNotFoundError:
            return None
        return None if found.get("type") == "directory" else _described(found)

    def read(self, name: str = "") -> bytes | None:
        """The content of a small object, or None where there is none."""
        try:
            return bytes(self._again(InputError, name, lambda: self._files.cat_file(self._path(name))))
        except FileNotFoundError:
            return None

    def download(self, name: str, path: Path) -> None:
        """Write an object into the file ``path``, which is whole when this returns.

        Raises:
            InputError: there is no such object, or it changed meanwhile.
        """
        known = self.describe(name)
        if known is None:
            raise InputError(f"{self._shown(name)}: no such object")
        if self.url.startswith("http"):  # a web server need not know ranges
            self._again(InputError, name, partial(self._download_at_once, name, path, known.size))
            return
        assert known.size is not None, "object storage tells it"
        with path.open("wb") as file:
            for start in range(0, known.size, _BLOCK):
                end = min(start + _BLOCK, known.size)
                file.write(self._again(InputError, name, partial(self._block, name, start, end)))
        if self.describe(name) != known:
            raise InputError(f"{self._shown(name)}: changed while it was read")

    def put(self, name: str, data: bytes) -> None:
        """Replace an object: a reader sees the old or the new one."""
        self._write(name, lambda: self._files.pipe_file(self._path(name), data))

    def upload(self, path: Path, name: str) -> None:
        """Replace an object by a file (FileNotFoundError: there is no such file)."""
        path.stat()
        self._write(name, lambda: self._files.put_file(str(path), self._path(name)))

    def create(self, name: str, data: bytes) -> bool:
        """Make an object unless there is one; whether it was made, here or by a first attempt that seemed to fail."""
        try:
            self._write(name, lambda: self._files.pipe_file(self._path(name), data, mode="create"))
        except FileExistsError:
            return self.read(name) == data
        return self.read(name) == data

    def names(self) -> dict[str, int]:
        """All objects below the URL, by name, and their sizes."""
        found = self._again(InputError, "", lambda: self._files.find(self._root, detail=True))
        start = len(self._root) + 1
        return {path[start:]: int(entry["size"] or 0) for path, entry in found.items() if path[start:]}

    def folders(self) -> list[str]:
        """Names of the folders directly below the URL: what has objects below it."""
        try:
            found = self._again(InputError, "", lambda: self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            return []
        return [PurePosixPath(entry["name"]).name for entry in found if entry["type"] == "directory"]

    def matching(self) -> list[str]:
        """URLs of the objects that the URL, a pattern, stands for."""
        scheme = self.url.partition(":")[0]
        found = self._again(InputError, "", lambda: self._files.glob(self._root))
        return [f"{scheme}://{path}" for path in sorted(found)]

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        for name in names:
            try:
                self._again(OutputError, name, partial(self._files.rm_file, self._path(name)))
            except FileNotFoundError:
                continue

    def _download_at_once(self, name: str, path: Path, size: int | None) -> None:
        self._files.get_file(self._path(name), str(path))
        if size not in (None, path.stat().st_size):
            raise OSError(f"the answer has {path.stat().st_size} bytes instead of {size}")

    def _block(self, name: str, start: int, end: int) -> bytes:
        data = bytes(self._files.cat_file(self._path(name), start=start, end=end))
        if len(data) != end - start:
            raise OSError(f"the answer has {len(data)} bytes instead of {end - start}")
        return data

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _shown(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _write(self, name: str, call: Callable[[], object]) -> None:
        try:
            self._again(OutputError, name, call)
        except FileNotFoundError as error:
            raise OutputError(f"{self._shown(name)}: cannot be written: there is no such bucket") from error

    def _again(self, kind: type[VidsegError], name: str, call: Callable[[], T]) -> T:
        """``call()``, whose errors are of whatever library is behind the URL; the last one becomes a ``kind``."""
        deadline = time.monotonic() + _PATIENCE_S  # some libraries try again for a minute themselves
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(_PAUSE_S * 2**attempt)
            try:
                return call()
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                last = error
                if isinstance(error, _FINAL) or time.monotonic() > deadline:
                    break
        verb = "written" if kind is OutputError else "read"
        reason = textwrap.shorten(str(last), 300) or type(last).__name__  # some answers hold a page of XML
        raise kind(f"{self._shown(name)}: cannot be {verb}: {reason}") from last


def _filesystem(url: str) -> tuple[Any, str]:
    scheme = url.partition(":")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    logging.getLogger("gcsfs").addHandler(_NOWHERE)
    try:
        import fsspec

        if scheme in ("s3", "s3a"):
            own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = {**_TIMEOUTS, **own}
        files = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UsageError(f"{url}: URLs of {scheme} need the extra 'cloud': pip install 'vidseg[cloud]'") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{url}: {error}") from error
    return files, str(files._strip_protocol(url)).rstrip("/")


def _described(found: dict[str, Any]) -> Described:
    times = [found.get(key) for key in _TIMES]  # some are text, beside another that is not
    when = next((time for time in times if isinstance(time, datetime | float)), None)
    seconds = when.timestamp() if isinstance(when, datetime) else when
    size = found.get("size")
    version = " ".join(f"{key}={found[key]}" for key in _VERSIONS if found.get(key) is not None)
    return Described(None if size is None else int(size), version, seconds)


def cache_folder() -> Path:
    """Where copies and work in progress are kept: ``$VIDSEG_CACHE``, else ``vidseg`` in the user's cache folder."""
    own, cache = os.environ.get("VIDSEG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(cache) if cache else Path.home() / ".cache") / "vidseg"
