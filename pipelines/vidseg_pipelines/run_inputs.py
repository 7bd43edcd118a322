"""What a run reads, and how to notice later that it is something else."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.address import parse_address, redact
from vidseg.config import RunConfig
from vidseg.errors import InputError
from vidseg.files import data_files, is_pattern, matches
from vidseg.names import is_part
from vidseg.outputs.layout import LOCK, OUTPUTS
from vidseg.prompt_text import mask_file
from vidseg.registry import weights_used
from vidseg.storage import object_url, url_of
from vidseg.storage_cache import here
from vidseg.types import Prompt
from vidseg.video.folders import video_of
from vidseg.weights import weights_identity

_BLOCK = 1 << 16
_BLOCKS_OF_A_FILE = 32
_BLOCKS_OF_AN_IMAGE = 2  # there may be many


def files_of(config: RunConfig) -> dict[str, dict[str, Any]]:
    """What tells the files that a run reads from others: the parts "input" and "prompts" of its manifest."""
    prompts = {url_of(path) or str(path): here(path) for path in _prompt_files(config)}
    given = input_here(config)
    return {
        "input": {"path": redact(config.input), **fingerprint((_video_in(given) or [given])[0])},
        "prompts": {name: fingerprint(path)["sha256_of_samples"] for name, path in prompts.items() if path.is_dir()}
        | {name: _digest(path) for name, path in prompts.items() if path.is_file()},
    }


def input_here(config: RunConfig) -> Path:
    """The file that is read: the input, or the copy of an object."""
    return here(config.input) if object_url(config.input) else Path(config.input)


def weights_of(config: RunConfig) -> dict[str, Any]:
    """Name and digest of every file of weights that the run uses."""
    used = {"tracker": weights_used("tracker", config.tracker, config.all_tracker_options(), config.model)}
    if config.detector:
        used["detector"] = weights_used("detector", config.detector, config.all_detector_options(), config.model)
    named = {"model": config.model} | {part: name for part, name in used.items() if name is not None}
    return {part: weights_identity(name) for part, name in named.items()}


def fingerprint(path: Path) -> dict[str, Any]:
    """Enough to notice that a file, or a folder or pattern of files, changed, without reading all of it; else empty.

    What a run writes into a folder of stills changes nothing.
    """
    pattern = is_pattern(str(path))
    if pattern or path.is_dir():
        ours = {LOCK, *OUTPUTS}
        among = map(Path, matches(str(path))) if pattern else data_files(path)
        files = sorted(f for f in among if f.is_file() and f.name not in ours and not is_part(f))
        known = [(file.name, file.stat().st_size, _digest(file, _BLOCKS_OF_AN_IMAGE)) for file in files]
        return {"files": len(files), "sha256_of_samples": hashlib.sha256(repr(known).encode()).hexdigest()}
    if not path.is_file():
        return {}
    return {"bytes": path.stat().st_size, "sha256_of_samples": _digest(path, _BLOCKS_OF_A_FILE)}


def fingerprint_of_prompt(prompt: Prompt) -> str:
    """Digest of all that a prompt says."""
    digest = hashlib.sha256(repr((prompt.box, prompt.points, prompt.point_labels, prompt.label)).encode())
    if prompt.mask is not None:
        digest.update(repr(prompt.mask.shape).encode() + np.packbits(prompt.mask).tobytes())
    return digest.hexdigest()


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


def input_files(config: RunConfig) -> list[str | Path]:
    """All that a run reads from this machine: the video, masks, boxes, the configuration; ``-``: standard input."""
    address = parse_address(config.input)
    files: list[str | Path] = [*_prompt_files(config)]
    if address.kind in ("file", "stdin"):
        stills = matches(address.url) if is_pattern(address.url) else []
        files += [address.url, *stills, *_video_in(Path(address.url))]
    return [*files, *(path for path in (config.config, config.classes) if path is not None)]


def _prompt_files(config: RunConfig) -> list[Path]:
    """Files and folders that say where objects are."""
    labelled = [] if config.from_ is None else [config.from_[1]]
    return [*(mask_file(text) for text in config.mask), *labelled, *_boxes_of(config)]


def _boxes_of(config: RunConfig) -> list[Path]:
    """The boxes that a tracker reads, however they are named."""
    file = config.all_tracker_options().get("file")
    return [Path(file)] if isinstance(file, (str, Path)) else []


def _video_in(path: Path) -> list[Path]:
    """The video that a folder stands for, if it stands for one."""
    with suppress(InputError):
        video, _ = video_of(path) if path.is_dir() else (None, None)
        return [] if video is None else [video]
    return []
