"""The output folder of a run: what it holds, what it was made of, and when a run may begin or go on in it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidseg import __version__
from vidseg.address import redact
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.names import is_part
from vidseg.outputs.files import clear_parts
from vidseg.prompts import mask_file
from vidseg.registry import weights_used
from vidseg.types import VideoInfo
from vidseg.weights import weights_identity
from vidseg_pipelines import resume

JOURNAL = "masks.jsonl"
OVERLAY = "overlay.mp4"
OUTPUTS = (  # the manifest goes first: what a killed --overwrite leaves must not pass for a finished run
    resume.MANIFEST,
    OVERLAY,
    "davis",
    "ytvis.json",
    "coco.json",
    "mots.txt",
    "report.html",
    JOURNAL,
    resume.SNAPSHOT,
)
_BLOCK = 1 << 16
_BLOCKS_OF_A_FILE = 32
_BLOCKS_OF_AN_IMAGE = 2  # there may be many


def new_manifest(config: RunConfig, video: VideoInfo) -> dict[str, Any]:
    """What ``run.json`` holds when a run begins."""
    info = {key: str(v) if isinstance(v, Fraction) else v for key, v in asdict(video).items()}
    del info["frame_names"], info["end"]  # the journal and the configuration have them
    return {
        "version": __version__,
        "status": "running",
        **files_of(config),
        "video": info,
        "config": config.content(),
        "config_sha256": config.digest(),
        "weights": weights_of(config),
    }


def files_of(config: RunConfig) -> dict[str, dict[str, Any]]:
    """What tells the files that a run reads from others: the parts "input" and "prompts" of its manifest."""
    prompts = [mask_file(text) for text in config.mask] + ([config.boxes] if config.boxes is not None else [])
    folders = [path for path in prompts if path.is_dir()]
    return {
        "input": {"path": redact(config.input), **fingerprint(Path(config.input))},
        "prompts": {str(path): fingerprint(path)["sha256_of_samples"] for path in folders}
        | {str(path): _digest(path) for path in prompts if path.is_file()},
    }


def weights_of(config: RunConfig) -> dict[str, Any]:
    """Name and digest of every file of weights that the run uses."""
    used = {"tracker": weights_used("tracker", config.tracker, config.all_tracker_options())}
    if config.detect_with:
        used["detector"] = weights_used("detector", config.detect_with, config.detector_options)
    named = {"model": config.model} | {part: name for part, name in used.items() if name is not None}
    return {part: weights_identity(name) for part, name in named.items()}


def fingerprint(path: Path) -> dict[str, Any]:
    """Enough to notice that a file, or a folder of files, changed, without reading all of it; empty for neither."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        known = [(file.name, file.stat().st_size, _digest(file, _BLOCKS_OF_AN_IMAGE)) for file in files]
        return {"files": len(files), "sha256_of_samples": hashlib.sha256(repr(known).encode()).hexdigest()}
    if not path.is_file():
        return {}
    return {"bytes": path.stat().st_size, "sha256_of_samples": _digest(path, _BLOCKS_OF_A_FILE)}


def _digest(path: Path, blocks: int | None = None) -> str:
    """sha256 of a file, or of ``blocks`` blocks of it, evenly from its beginning to its end."""
    with path.open("rb") as file:
        last = path.stat().st_size - _BLOCK
        if blocks is None or last < (blocks - 1) * _BLOCK:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for number in range(blocks):
            file.seek(last * number // (blocks - 1))
            digest.update(file.read(_BLOCK))
        return digest.hexdigest()


def check_folder(folder: Path, manifest: Mapping[str, Any], config: RunConfig, *, live: bool) -> dict[str, Any] | None:
    """Refuse, clear or accept what is in the output folder; the old manifest when the run there goes on.

    Raises:
        UsageError: it holds something, and the settings do not say what to do, or it cannot go on.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output {folder} is a file; name a folder")
    if config.overwrite:
        clear_folder(folder)
        return None
    if not folder.exists() or all(is_part(path) for path in folder.iterdir()):
        clear_parts(folder)
        return None
    if not config.resume:
        raise UsageError(f"output folder {folder} exists: use --resume, --overwrite or another --output")
    old = resume.read_manifest(folder)
    if old is None:
        raise UsageError(f"--resume: {folder} holds no run (no {resume.MANIFEST}); use --overwrite")
    if live:
        raise UsageError("--resume: a live input cannot be read again; use --overwrite or another --output")
    resume.check_same_run(old, manifest)
    for place in (folder, folder / "davis"):
        clear_parts(place)  # files that the kill cut off
    return old


def clear_folder(folder: Path) -> None:
    """Remove what runs write into an output folder; other files stay. Does nothing when there is no such folder."""
    for path in [folder / name for name in OUTPUTS]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    clear_parts(folder)


def discard_folder(folder: Path) -> None:
    """:func:`clear_folder`, and the folder itself goes when it is empty then. Errors are left to the next run."""
    with contextlib.suppress(OSError):
        clear_folder(folder)
        folder.rmdir()
