"""The run folder: its manifest, and the snapshots from which a killed run goes on.

A snapshot holds the tracker's state before frame N and is written, atomically, only when the journal holds every frame
before N. Micro-batches start at multiples of the batch size, so a resumed run groups the same frames and computes the
same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidseg import __version__
from vidseg.atomic_files import atomic_file
from vidseg.errors import OutputError, UsageError, output_error
from vidseg.outputs.journal import read_journal
from vidseg.outputs.layout import MANIFEST, SNAPSHOT
from vidseg.types import State

_SECTIONS = ("config", "input", "prompts", "weights")  # of the manifest, that decide the result


@dataclass(frozen=True)
class Snapshot:
    """State before ``next_frame``, the first frame still to do."""

    next_frame: int
    state: State


def save_snapshot(folder: Path, snapshot: Snapshot, manifest: Mapping[str, Any]) -> None:
    """Replace the folder's snapshot; ``manifest`` is that of the run."""
    tensors = {k: v.contiguous() for k, v in snapshot.state.items() if isinstance(v, torch.Tensor)}
    scalars = {k: v for k, v in snapshot.state.items() if not isinstance(v, torch.Tensor)}
    metadata = {
        "next_frame": str(snapshot.next_frame),
        "scalars": json.dumps(scalars),
        "version": __version__,
        "run": _run_id(manifest),
    }
    with atomic_file(folder / SNAPSHOT) as file:
        try:  # straight from the tensors: as one piece of bytes they would be in memory twice
            save_file(tensors, file.name, metadata)
        except SafetensorError as error:
            raise _cannot_write(folder / SNAPSHOT, error) from error


def _cannot_write(path: Path, error: SafetensorError) -> OutputError:
    """As :func:`~vidseg.errors.output_error`: safetensors names the number of the system's error in its text alone."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OutputError(f"{path}: cannot write: {error}")
    return output_error(path, OSError(int(number[1]), os.strerror(int(number[1]))))


def load_snapshot(folder: Path, manifest: Mapping[str, Any]) -> Snapshot | None:
    """The folder's snapshot, or None when there is none; ``manifest`` is that of the run that goes on.

    Raises:
        UsageError: it is damaged, or was made by another version of vidseg or by another run.
    """
    path = folder / SNAPSHOT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state: State = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        versions = {metadata["version"], manifest["version"]}
        if versions != {__version__}:
            (other, *_) = versions - {__version__}
            raise unusable(folder, f"it was made by vidseg {other}, this is {__version__}")
        if metadata["run"] != _run_id(manifest):
            raise unusable(folder, "it is of another run")
        state.update(json.loads(metadata["scalars"]))
        return Snapshot(int(metadata["next_frame"]), state)
    except UsageError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise unusable(folder) from error


def unusable(folder: Path, why: str = "it is damaged") -> UsageError:
    """The error of a snapshot that no run can go on from."""
    return UsageError(f"--resume: {folder / SNAPSHOT}: {why}; delete it to go on from the first frame")


def _run_id(manifest: Mapping[str, Any]) -> str:
    """Digest of all that decides the state of a run, but for weights, which may be fetched on the way."""
    known = {section: manifest[section] for section in _SECTIONS if section != "weights"}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's run.json, or None when there is none."""
    try:
        data: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(data["status"], str) or not all(isinstance(data[section], dict) for section in _SECTIONS):
            raise TypeError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{folder / MANIFEST}: not the manifest of a run; use --overwrite to start again") from error
    return data


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the folder's run.json."""
    with atomic_file(folder / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())


def check_journal(journal: Path, next_frame: int) -> None:
    """Refuse to go on at ``next_frame`` with a journal that does not reach up to it.

    Raises:
        UsageError: it lacks the frame before. InputError: a line of it is no result.
    """
    last = None
    for masks in read_journal(journal) if journal.exists() else ():
        if masks.frame_index >= next_frame:
            break
        last = masks.frame_index
    if last != next_frame - 1:
        raise lacking(journal, next_frame - 1)


def lacking(journal: Path, frame_index: int) -> UsageError:
    """The error of a journal without a frame that the snapshot builds on."""
    return UsageError(f"--resume: {journal} lacks frame {frame_index}; use --overwrite to start again")


def check_same_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to continue ``old`` with other settings, another input or other weights.

    Raises:
        UsageError: names the first differences, old and new.
    """
    found = differences(old, new)
    if found:
        raise UsageError(f"--resume: the run in the output folder was made differently ({found}); use --overwrite")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first three differences of two manifests that decide the result, or an empty text."""
    found = [
        f"{section}.{key}: {old_part.get(key)!r} -> {new_part.get(key)!r}"
        for section in _SECTIONS
        for old_part, new_part in [(old.get(section, {}), new.get(section, {}))]
        for key in sorted({*old_part, *new_part})
        if old_part.get(key) != new_part.get(key)
    ]
    return "; ".join(found[:3])
