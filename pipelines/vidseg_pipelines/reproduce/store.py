"""The folder of a benchmark run: a journal with a line per finished image or video, and what is made from it.

bench.json     settings, data and weights; another call with the same ones goes on, with others it is refused
results.jsonl  one line per image or video, flushed when it is done
score.json     the scores and their protocol
bench.lock     held while a call works on the folder
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import InputError, UsageError, output_error
from vidseg.locks import file_lock
from vidseg.names import is_part
from vidseg_pipelines.manifest import differences

MANIFEST, JOURNAL, SCORE, LOCK = "bench.json", "results.jsonl", "score.json", "bench.lock"
_MADE = (MANIFEST, SCORE, "ground-truth*.json", "results-*.json", "predictions", "runs", JOURNAL, "*.part")
Record = dict[str, Any]


def folder_lock(folder: Path, *, overwrite: bool = False) -> AbstractContextManager[None]:
    """Keep other calls out of the output folder, which is made if needed: they would write the same lines twice.

    Raises:
        UsageError: another call works there, or it is no folder, or holds something else and ``overwrite`` is not set.
        OutputError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output {folder} is a file; give a folder")
    names = {path.name for path in folder.iterdir() if not is_part(path)} if folder.is_dir() else set()
    if MANIFEST not in names and names - {LOCK} and not overwrite:
        raise UsageError(f"output folder {folder} holds no benchmark run: choose another --output")
    busy = f"another call works on output folder {folder}: wait for it, or choose another --output"
    return file_lock(make_folder(folder) / LOCK, busy)


class ReproduceRecords:
    """What is done, on disk. A kill loses at most the image or video that was being worked on.

    The folder exists, and nobody else works on it: see :func:`folder_lock`.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Open the folder, empty or not.

        Raises:
            UsageError: it holds a run with other settings, data or weights.
            InputError: its journal is damaged. OutputError: it cannot be written.
        """
        self.folder = folder
        if overwrite:
            _clear(folder)
        old = _read_manifest(folder)
        self._places = self._index()
        found = differences(old, manifest) if old and self._places else ""
        if found:
            raise UsageError(
                f"output folder {folder} holds a run with other settings ({found}): use --overwrite or another --output"
            )
        self.describe(manifest)

    def describe(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, unless there are results that the one in the folder belongs to."""
        if not self._places:
            with atomic_file(self.folder / MANIFEST) as file:
                file.write((json.dumps(manifest, indent=2) + "\n").encode())

    @property
    def done(self) -> Collection[str]:
        """Keys of the finished images and videos."""
        return self._places.keys()

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep the result of one image or video; it is in the file when this returns.

        Raises:
            OutputError: the disk is full or the like; the journal keeps its whole lines.
        """
        line = (json.dumps({"item": key, **record}, separators=(",", ":"), allow_nan=False) + "\n").encode()
        path = self.folder / JOURNAL
        length = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(line)
        except OSError as error:
            os.truncate(path, length)
            raise output_error(path, error) from error
        self._places[key] = length

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, Record]]:
        """The records of ``keys``, which must be done, in their order."""
        with (self.folder / JOURNAL).open("rb") as file:
            for key in keys:
                file.seek(self._places[key])
                yield key, json.loads(file.readline())

    def write_json(self, name: str, content: object) -> Path:
        """Write a json file into the folder, whole or not at all."""
        with atomic_file(self.folder / name) as file:
            file.write((json.dumps(content, allow_nan=False) + "\n").encode())
        return self.folder / name

    def _index(self) -> dict[str, int]:
        """Where the line of every finished item begins; a half-written last line is cut off."""
        path, places, end = self.folder / JOURNAL, dict[str, int](), 0
        if not path.exists():
            return places
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    places[str(json.loads(line)["item"])] = end
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}, line {number}: damaged; use --overwrite to start again") from error
                end += len(line)
        os.truncate(path, end)
        return places


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / MANIFEST}: cannot be read; use --overwrite to start again") from error
    return data


def _clear(folder: Path) -> None:
    """Remove what benchmark runs write; other files stay."""
    for pattern in _MADE:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
