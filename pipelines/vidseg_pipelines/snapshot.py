"""Snapshots of a run's state, from which a killed run goes on.

A snapshot holds the state before frame N and is written, atomically, only when the journal holds every frame before N.
Micro-batches start at multiples of the batch size, so a resumed run groups the same frames and computes the same bits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidseg import __version__
from vidseg.atomic_files import make_folder
from vidseg.errors import OutputError, UsageError, output_error
from vidseg.names import part_of
from vidseg.types import State
from vidseg_pipelines.made_of import MadeOf
from vidseg_pipelines.segmenter import Segmenter


@dataclass(frozen=True)
class Snapshot:
    """State before ``next_frame``, the first frame still to do."""

    next_frame: int
    state: State
    latest: bool = True
    """It replaces the last one."""
    kept: bool = False
    """It stays after the run."""
    path: Path | None = None
    """The file that it was read from."""


class Snapshots:
    """Takes snapshots of a run's state: the last one is in a file, and every ``keep_every`` frames one is kept."""

    def __init__(
        self, latest: Path, kept: Path, made_of: MadeOf, *, every: int, keep_every: int = 0, next_frame: int
    ) -> None:
        """Snapshots of a run that begins at ``next_frame``.

        Args:
            latest: the file of the last one.
            kept: the folder of those that stay.
            made_of: what the run is made of.
            every: frames between two.
            keep_every: frames between two that stay; 0: none stays.
            next_frame: the first frame to do.
        """
        self._latest, self._kept, self._made_of = latest, kept, made_of
        self._every, self._keep_every, self._last = every, keep_every, next_frame
        self._last_kept = next_frame

    def due(self, next_frame: int) -> bool:
        """Whether it is time for the state before ``next_frame``."""
        return any(self._kinds(next_frame))

    def _kinds(self, next_frame: int) -> tuple[bool, bool]:
        """Whether the state is the latest one by then, and one that is kept."""
        every = self._keep_every
        return next_frame - self._last >= self._every, every > 0 and next_frame // every > self._last_kept // every

    def take(self, segmenter: Segmenter, next_frame: int, *, now: bool = False) -> Snapshot | None:
        """The state before ``next_frame``, when it is time for one, or ``now``, and no frame is held back."""
        latest, kept = self._kinds(next_frame)
        latest |= now
        if not (latest or kept) or (state := segmenter.state_dict()) is None:
            return None
        self._last = next_frame if latest else self._last
        self._last_kept = next_frame if kept else self._last_kept
        return Snapshot(next_frame, state, latest, kept)

    def save(self, snapshot: Snapshot) -> None:
        """Write the files. Every frame before the snapshot's must be in the journal.

        Raises:
            OutputError: they cannot be written.
        """
        if snapshot.kept:  # first: a run that goes on from the other one has it already
            save_snapshot(make_folder(self._kept) / f"{snapshot.next_frame:08d}.safetensors", snapshot, self._made_of)
        if snapshot.latest:
            save_snapshot(self._latest, snapshot, self._made_of)


def save_snapshot(path: Path, snapshot: Snapshot, made_of: MadeOf) -> None:
    """Replace a snapshot of a run."""
    tensors = {k: v.contiguous() for k, v in snapshot.state.items() if isinstance(v, torch.Tensor)}
    scalars = {k: v for k, v in snapshot.state.items() if not isinstance(v, torch.Tensor)}
    metadata = {
        "next_frame": str(snapshot.next_frame),
        "scalars": json.dumps(scalars),
        "version": __version__,
        "run": made_of.before(snapshot.next_frame),
    }
    part = part_of(path)  # a folder: safetensors writes a temporary file beside the one that it is asked for
    try:
        part.mkdir()
        try:  # straight from the tensors: as one piece of bytes they would be in memory twice
            save_file(tensors, str(part / path.name), metadata)
        except SafetensorError as error:
            raise _cannot_write(path, error) from error
        (part / path.name).replace(path)
    except OSError as error:
        raise error if isinstance(error, OutputError) else output_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_snapshot(path: Path, made_of: MadeOf) -> Snapshot | None:
    """A snapshot from which a run can go on, or None when there is none.

    Raises:
        UsageError: it is damaged, or was made by another version of vidseg or by another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state: State = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        for other in (made_of.manifest["version"], metadata["version"]):
            if other != __version__:
                raise UnusableSnapshotError(path, f"it was made by vidseg {other}, this is {__version__}")
        next_frame = int(metadata["next_frame"])
        if metadata["run"] not in (made_of.before(next_frame), made_of.whole):
            raise OtherRunError(path, "it is of another run")
        state.update(json.loads(metadata["scalars"]))
        return Snapshot(next_frame, state, path=path)
    except UnusableSnapshotError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UnusableSnapshotError(path) from error


class UnusableSnapshotError(UsageError):
    """No run can go on from a snapshot, and ``why``."""

    def __init__(self, path: Path, why: str = "it is damaged") -> None:
        super().__init__(f"--resume: {path}: {why}; delete it to restart from the first frame")
        self.why = why


class OtherRunError(UnusableSnapshotError):
    """It was made by another run, or before something else was said of a frame before it."""


def _cannot_write(path: Path, error: SafetensorError) -> OutputError:
    """As :func:`~vidseg.errors.output_error`: safetensors names the number of the system's error in its text alone."""
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        return OutputError(f"{path}: cannot write: {error}")
    return output_error(path, OSError(int(number[1]), os.strerror(int(number[1]))))
