"""Exports as downloads: ``vidseg export`` in a process of its own."""

from __future__ import annotations

import asyncio
import shutil
import sys
import zipfile
from pathlib import Path

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, OutputError, UsageError, VidsegError
from vidseg.outputs import WRITERS
from vidseg.outputs.layout import EXPORTED

_ERRORS: dict[int, type[VidsegError]] = {kind.exit_code: kind for kind in (UsageError, InputError)}
EXPORTS = "exports"
"""Folder below that of a run which holds what was exported on the page."""


def formats() -> list[str]:
    """What can be exported."""
    return list(EXPORTED)


async def export(run: Path, video: Path | None, name: str) -> Path:
    """Export a run; gives the file to download, a folder as a zip. Without a ``video`` there are no pictures.

    Raises:
        UsageError: unknown format, or one that shows the frames. InputError, OutputError: what ``vidseg export``
            complained of.
    """
    if name not in EXPORTED:
        raise UsageError(f"export {name[:40]!r}: allowed are {', '.join(EXPORTED)}")
    if video is None and name not in WRITERS:
        raise UsageError(f"export {name}: it shows the frames, and those that were pushed are not kept")
    target = run / EXPORTS / name
    shutil.rmtree(target, ignore_errors=True)
    make_folder(target)
    command = [sys.executable, "-m", "vidseg", "export", str(run), "--to", name, "--output", str(target)]
    command += [] if video is None else ["--input", str(video)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    made = target / EXPORTED[name]
    if not made.exists():
        text = complaint.decode(errors="replace").strip().splitlines()
        kind = _ERRORS.get(process.returncode or 1, OutputError)
        raise kind(text[-1].removeprefix("vidseg: ") if text else f"{name}: the export failed")
    return await asyncio.to_thread(_zipped, made) if made.is_dir() else made


def _zipped(folder: Path) -> Path:
    target = folder.with_name(f"{folder.name}.zip")
    with atomic_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, Path(folder.name) / path.relative_to(folder))
    shutil.rmtree(folder)
    return target
