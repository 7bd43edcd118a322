"""What a session leaves on the disk, so that it comes back after a pause or a restart as it was.

A session is the state before some frame, and the calls since then, in order. Repeating them gives the same masks. A
folder holds ``session.json`` (its settings, and the number of the generation that counts), ``state-N.safetensors``,
``calls-N.jsonl``, the frames that were pushed since (``frames-N/``), and the masks of all frames (``masks.jsonl``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, output_error
from vidseg.types import State

_META = "session.json"


class SessionStore:
    """The folder of one session."""

    def __init__(self, folder: Path) -> None:
        """A folder that may not be there yet."""
        self.folder = folder
        self.meta: dict[str, Any] = {"generation": 0}

    @classmethod
    def create(cls, folder: Path, meta: dict[str, Any]) -> SessionStore:
        """A new session.

        Raises:
            OutputError: it cannot be written.
        """
        store = cls(folder)
        make_folder(folder)
        store.meta |= meta
        store.write_meta()
        return store

    @classmethod
    def load(cls, folder: Path) -> SessionStore:
        """The session of a folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        store = cls(folder)
        try:
            store.meta = json.loads((folder / _META).read_bytes())
            int(store.meta["generation"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"{folder.name}: the session on the disk is damaged") from error
        return store

    @property
    def generation(self) -> int:
        """The one that counts."""
        return int(self.meta["generation"])

    def write_meta(self) -> None:
        """Replace ``session.json``."""
        with atomic_file(self.folder / _META) as file:
            file.write(json.dumps(self.meta).encode())

    def save_frame(self, number: int, data: bytes, generation: int | None = None) -> None:
        """Keep a frame that was pushed, as it came."""
        folder = make_folder(self._path("frames", generation))
        with atomic_file(folder / str(number)) as file:
            file.write(data)

    def frame(self, number: int) -> bytes:
        """A frame that was pushed."""
        return (self._path("frames") / str(number)).read_bytes()

    def append(self, call: dict[str, Any]) -> None:
        """Note a call that was made.

        Raises:
            OutputError: the disk is full or the like; the calls are as before.
        """
        path, line = self._path("calls", suffix=".jsonl"), json.dumps(call).encode() + b"\n"
        try:
            with path.open("ab", buffering=0) as file:
                start = file.tell()
                if file.write(line) != len(line):
                    file.truncate(start)
                    raise OSError(28, "No space left on device")
        except OSError as error:
            raise output_error(path, error) from error

    def calls(self) -> Iterator[dict[str, Any]]:
        """The calls since the state; one that was half written was never answered."""
        path = self._path("calls", suffix=".jsonl")
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if line.endswith(b"\n"):
                yield json.loads(line)

    def begin_generation(self, state: State | None, call: dict[str, Any] | None, frame: bytes | None = None) -> None:
        """From now on a state counts (None: a fresh session), and one call after it.

        Raises:
            OutputError: it cannot be written; the former generation counts.
        """
        number = self.generation + 1
        if state is not None:
            with atomic_file(self._path("state", number, ".safetensors")) as file:
                file.write(pack_state(state))
        if call is not None and frame is not None:
            self.save_frame(int(call["frame"]), frame, number)
        with atomic_file(self._path("calls", number, ".jsonl")) as file:
            file.write(b"" if call is None else json.dumps(call).encode() + b"\n")
        former, self.meta["generation"] = self.generation, number
        try:
            self.write_meta()
        except BaseException:
            self.meta["generation"] = former
            raise
        self._remove(former)

    def state(self) -> State | None:
        """The state that counts; None: a fresh session.

        Raises:
            InputError: it is damaged.
        """
        path = self._path("state", suffix=".safetensors")
        return unpack_state(path.read_bytes()) if path.exists() else None

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, kind: str, generation: int | None = None, suffix: str = "") -> Path:
        return self.folder / f"{kind}-{self.generation if generation is None else generation}{suffix}"

    def _remove(self, generation: int) -> None:
        for kind, suffix in (("state", ".safetensors"), ("calls", ".jsonl")):
            self._path(kind, generation, suffix).unlink(missing_ok=True)
        shutil.rmtree(self._path("frames", generation), ignore_errors=True)


def pack_state(state: State) -> bytes:
    """A state as one safetensors file."""
    tensors = {name: value.contiguous().cpu() for name, value in state.items() if isinstance(value, torch.Tensor)}
    scalars = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
    return save(tensors, {"scalars": json.dumps(scalars)})


def unpack_state(data: bytes) -> State:
    """What :func:`pack_state` has packed.

    Raises:
        InputError: it is something else.
    """

    try:
        length = int.from_bytes(data[:8], "little")
        scalars = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["scalars"])
        return {**load(data), **scalars}
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise InputError("this is not the state of a session") from error
