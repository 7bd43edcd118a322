"""Files behind URLs as files here: a bounded cache of whole copies."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from vidseg.errors import InputError, UsageError, output_error
from vidseg.storage import Storage, cache_folder, url_of

_DEFAULT_GB = 20.0
_IN_USE_S = 60.0
"""A copy that somebody asked for so shortly ago is not removed: he may be about to open it."""


def here(path: str | PurePath) -> Path:
    """The file ``path``, or a whole copy of it when it is a URL.

    Copies are kept in ``objects`` of :func:`~vidseg.storage.cache_folder`; those used longest ago make room for others
    when all take more than ``$VIDSEG_CACHE_GB`` (20). An object that changed is copied anew.

    Raises:
        InputError: there is no such object, it cannot be read, or is larger than the cache.
        OutputError: the copy cannot be written.
    """
    url = url_of(path)
    if url is None:
        return Path(path)
    from filelock import FileLock  # here: it takes longer than all else, and most files are no URLs

    storage = Storage(url)
    known = storage.describe()
    if known is None:
        raise InputError(f"{url}: no such object")
    root, limit = cache_folder() / "objects", _limit()
    if known.size is not None and known.size > limit:
        raise InputError(f"{url}: {known.size:,} bytes, more than the cache may hold: raise VIDSEG_CACHE_GB")
    name = hashlib.sha256(f"{url}\n{known.version}".encode()).hexdigest()[:24]
    kept = root / name / _file_name(url)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name[:2]}.lock"):  # who wants the same object waits, and others seldom
            if not kept.is_file():
                _make_room(root, limit - (known.size or 0))
                part = root / f"{uuid.uuid4().hex}.part"
                try:
                    storage.download("", part)
                    kept.parent.mkdir(exist_ok=True)
                    part.replace(kept)
                finally:
                    part.unlink(missing_ok=True)
            os.utime(kept.parent)
    except OSError as error:
        raise output_error(root, error) from error
    return kept


def _limit() -> float:
    text = os.environ.get("VIDSEG_CACHE_GB", "")
    try:
        limit = float(text or _DEFAULT_GB)
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise UsageError(f"VIDSEG_CACHE_GB={text}: expected gigabytes, more than 0")
    return limit * 1e9


def _file_name(url: str) -> str:
    """The last part of the URL, because endings tell what is in a file, and names name results."""
    return re.sub(r"[^\w.-]+", "_", PurePath(urlsplit(url).path).name)[-100:] or "object"


def _make_room(root: Path, limit: float) -> None:
    """Remove what was used longest ago until the rest takes no more than ``limit`` bytes."""
    now, copies = time.time(), []
    for place in root.iterdir():
        try:
            if place.is_dir():
                copies.append((place.stat().st_mtime, sum(file.stat().st_size for file in place.iterdir()), place))
            elif place.suffix == ".part" and now - place.stat().st_mtime > 86400:
                place.unlink()  # of a process that was killed
        except FileNotFoundError:
            continue  # another process made room
    total = sum(size for _, size, _ in copies)
    for used, size, place in sorted(copies):
        if total <= limit or now - used < _IN_USE_S:
            return
        shutil.rmtree(place, ignore_errors=True)
        total -= size
