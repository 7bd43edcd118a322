"""Uploads: bounded, complete or not there at all, and videos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, UsageError
from vidseg.names import safe_name
from vidseg.video import probe
from vidseg.video.folders import VIDEO_SUFFIXES

UPLOAD_LIMIT = 4 << 30
"""Bytes of an upload."""


async def receive(chunks: AsyncIterator[bytes], name: str, folder: Path, limit: int = UPLOAD_LIMIT) -> Path:
    """Write an upload into ``folder`` under a safe name that is free.

    Raises:
        UsageError: it is larger than ``limit`` bytes. InputError: it is no video. OutputError: the disk is full.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise InputError(f"{name[:80]}: not the name of a video, such as .mp4, .mov or .mkv")
    make_folder(folder)
    path = _free(folder / f"{safe_name(Path(name).stem)}{suffix}")
    size = 0
    with atomic_file(path) as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise UsageError(f"{name[:80]}: larger than the {limit} bytes that are allowed")
            file.write(chunk)
        file.flush()
    try:
        if probe(path).frame_names:  # read by its content, whatever its name
            raise InputError(f"{name[:80]}: a picture, not a video")
    except InputError as error:
        path.unlink(missing_ok=True)
        raise InputError(str(error).replace(str(path), path.name)) from error  # where it lay is nobody's business
    return path


def _free(path: Path) -> Path:
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
