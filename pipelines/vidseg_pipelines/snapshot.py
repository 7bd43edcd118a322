"""Snapshots of a run's state, from which a killed run goes on.

A snapshot holds the state before frame N and is written, atomically, only when the journal holds every frame before N.
Micro-batches start at multiples of the batch size, so a resumed run groups the same frames and computes the same bits.
"""

from __future__ import annotations

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
from vidseg.types import State
from vidseg_pipelines.manifest import run_id
from vidseg_pipelines.segmenter import Segmenter


@dataclass(frozen=True)
class Snapshot:
    """State before ``next_frame``, the first frame still to do."""

    next_frame: int
    state: State


class Snapshots:
    """Takes a snapshot of a run's state every so many frames, and keeps the last one in a file."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, every: int, next_frame: int) -> None:
        """Snapshots of the run of ``manifest``, which begins at ``next_frame``."""
        self._path, self._manifest, self._every, self._last = path, manifest, every, next_frame

    def take(self, segmenter: Segmenter, next_frame: int, *, now: bool = False) -> Snapshot | None:
        """The state before ``next_frame``, when it is time for one, or ``now``, and no frame is held back."""
        due = now or next_frame - self._last >= self._every
        if not due or (state := segmenter.state_dict()) is None:
            return None
        self._last = next_frame
        return Snapshot(next_frame, state)

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file. Every frame before the snapshot's must be in the journal.

        Raises:
            OutputError: it cannot be written.
        """
        save_snapshot(self._path, snapshot, self._manifest)


def save_snapshot(path: Path, snapshot: Snapshot, manifest: Mapping[str, Any]) -> None:
    """Replace the snapshot of the run of ``manifest``."""
    tensors = {k: v.contiguous() for k, v in snapshot.state.items() if isinstance(v, torch.Tensor)}
    scalars = {k: v for k, v in snapshot.state.items() if not isinstance(v, torch.Tensor)}
    metadata = {
        "next_frame": str(snapshot.next_frame),
        "scalars": json.dumps(scalars),
        "version": __version__,
        "run": run_id(manifest),
    }
    with atomic_file(path) as file:
        try:  # straight from the tensors: as one piece of bytes they would be in memory twice
            save_file(tensors, file.name, metadata)
        except SafetensorError as error:
            raise _cannot_write(path, error) from error


def load_snapshot(path: Path, manifest: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot of the run of ``manifest``, which goes on, or None when there is none.

    Raises:
        UsageError: it is damaged, or was made by another version of vidseg or by another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state: State = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        versions = {metadata["version"], manifest["version"]}
        if versions != {__version__}:
            (other, *_) = versions - {__version__}
            raise unusable(path, f"it was made by vidseg {other}, this is {__version__}")
        if metadata["run"] != run_id(manifest):
            raise unusable(path, "it is of another run")
        state.update(json.loads(metadata["scalars"]))
        return Snapshot(int(metadata["next_frame"]), state)
    except UsageError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise unusable(path) from error


def unusable(path: Path, why: str = "it is damaged") -> UsageError:
    """The error of a snapshot that no run can go on from."""
    return UsageError(f"--resume: {path}: {why}; delete it to restart from the first frame")


def _cannot_write(path: Path, error: SafetensorError) -> OutputError:
    """As :func:`~vidseg.errors.output_error`: safetensors names the number of the system's error in its text alone."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OutputError(f"{path}: cannot write: {error}")
    return output_error(path, OSError(int(number[1]), os.strerror(int(number[1]))))
