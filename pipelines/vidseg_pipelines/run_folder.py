"""The output folder of a run: its files by name, when a run may begin or go on in it, and what is removed from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.atomic_files import clear_parts
from vidseg.config import RunConfig
from vidseg.errors import UsageError, output_error
from vidseg.masks.frame_masks import FrameMasks
from vidseg.names import is_part, safe_name
from vidseg.outputs import JournalSink, read_journal, truncate_journal
from vidseg.outputs.folder import claimed, keep_apart
from vidseg.outputs.layout import DAVIS, EXPORTED, FOLDERS, JOURNAL, LOCK, MANIFEST, OUTPUTS, SNAPSHOT, STATES
from vidseg.types import VideoInfo
from vidseg_pipelines.made_of import MadeOf
from vidseg_pipelines.manifest import read_manifest, write_manifest
from vidseg_pipelines.snapshot import Snapshot, load_snapshot

FINISHED = ("done", "partial")
"""What the manifest of a run says when there is nothing left to do."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes. What changes files is called while the folder is :meth:`claimed`."""

    path: Path

    @classmethod
    def of(cls, config: RunConfig, video: VideoInfo) -> RunFolder:
        """The folder that ``config`` names, or the one called after the video."""
        return cls(config.output or Path("runs") / safe_name(video.name))

    @property
    def manifest(self) -> Path:
        """What the run is made of and how it stands."""
        return self.path / MANIFEST

    @property
    def journal(self) -> Path:
        """The results, frame by frame."""
        return self.path / JOURNAL

    @property
    def snapshot(self) -> Path:
        """The state from which the run can go on."""
        return self.path / SNAPSHOT

    @property
    def states(self) -> Path:
        """The folder of the states that stay after the run."""
        return self.path / STATES

    @property
    def davis(self) -> Path:
        """The folder of label maps."""
        return self.path / DAVIS

    @property
    def has_journal(self) -> bool:
        """Whether there are results."""
        return self.journal.is_file()

    def outputs(self, saves: Iterable[str] = ()) -> list[Path]:
        """All that a run that saves these formats may write."""
        return [self.path / name for name in dict.fromkeys([*OUTPUTS, *(EXPORTED[name] for name in saves)])]

    @property
    def written(self) -> list[Path]:
        """What the run here has written."""
        return [path for path in self.outputs(self._saved()) if path.exists()]

    @contextmanager
    def claimed(self, *, reading: Iterable[str | Path] = (), saves: Iterable[str] = ()) -> Iterator[None]:
        """Keep every other process out of the folder; see :func:`vidseg.outputs.folder.claimed`.

        Raises:
            FolderInUseError: another process holds it.
            UsageError: one of the files ``reading`` is among what a run that ``saves`` these formats writes.
            OutputError: it cannot be made.
        """
        keep_apart(reading, self.outputs(saves))
        with claimed(self.path):
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest of the run here, or None when there is none; a file that is none is a UsageError."""
        return read_manifest(self.manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; an OutputError when it cannot be written."""
        write_manifest(self.manifest, manifest)

    def earlier_run(self, config: RunConfig, *, live: bool) -> dict[str, Any] | None:
        """The manifest of the run here that ``config`` goes on with; None: it begins anew.

        Raises:
            UsageError: the folder holds something, and the settings do not say what to do, or it cannot go on.
        """
        flag = "--continue" if config.continue_ else "--resume"
        if config.overwrite:
            return None
        if all(path.name == LOCK or is_part(path) for path in self.path.iterdir()) and not config.continue_:
            return None
        if not (config.resume or config.continue_):
            raise UsageError(
                f"output folder {self.path} exists: use --resume, --overwrite, --continue or another --output"
            )
        earlier = self.read_manifest()
        if earlier is None:
            raise no_run(flag, self.path)
        if live:
            raise UsageError(f"{flag}: a live input cannot be read again; use --overwrite or another --output")
        return earlier

    def load_snapshot(self, made_of: MadeOf) -> Snapshot | None:
        """The last snapshot of a run, or None. The journal holds every frame before it.

        Raises:
            UsageError: it cannot be used, or the journal lacks a frame. InputError: the journal is damaged.
        """
        snapshot = load_snapshot(self.snapshot, made_of)
        if snapshot is not None:
            last = None
            for masks in read_journal(self.journal) if self.journal.exists() else ():
                if masks.frame_index >= snapshot.next_frame:
                    break
                last = masks.frame_index
            if last != snapshot.next_frame - 1:
                raise self.lacking(snapshot.next_frame - 1)
        return snapshot

    def lacking(self, frame_index: int) -> UsageError:
        """The error of a journal without a frame that the snapshot builds on."""
        return UsageError(f"--resume: {self.journal} lacks frame {frame_index}; use --overwrite to start again")

    def kept_states(self) -> list[Path]:
        """Files of the states that stay after a run, the latest first; their names are numbers."""
        pattern = next(iter(FOLDERS[STATES]))
        return sorted((p for p in self.states.glob(pattern) if p.stem.isdecimal()), key=frame_of, reverse=True)

    def remove_snapshot(self) -> None:
        """Nobody goes on from here."""
        self.snapshot.unlink(missing_ok=True)

    def remove_states(self, after: int) -> None:
        """Remove the states after a frame of which something new is said.

        Raises:
            OutputError: they cannot be removed.
        """
        try:
            self.remove_snapshot()
            for path in self.kept_states():
                if frame_of(path) > after:
                    path.unlink()
        except OSError as error:
            raise output_error(self.path, error) from error

    def results(self) -> Iterator[FrameMasks]:
        """What the journal holds, in order."""
        return read_journal(self.journal)

    def open_journal(self, *, resuming: bool, next_frame: int, names: Mapping[int, str]) -> JournalSink:
        """A new journal, or the one of the run that goes on, cut back to the frames before ``next_frame``.

        Objects there get their ``names``.
        """
        append = resuming and self.journal.exists()
        if append:
            truncate_journal(self.journal, next_frame, names)
        return JournalSink(self.journal, append=append)

    def clear(self) -> None:
        """Remove what runs write; other files stay.

        Raises:
            OutputError: something cannot be removed.
        """
        try:
            for path in self.outputs(self._saved()):
                if path.name in FOLDERS and path.is_dir() and not path.is_symlink():
                    _clear_made(path)
                elif path.is_symlink() or not path.is_dir():
                    path.unlink(missing_ok=True)
            clear_parts(self.path)
        except OSError as error:
            raise output_error(self.path, error) from error

    def clear_unfinished(self) -> None:
        """Remove the files that a kill cut off.

        Raises:
            OutputError: they cannot be removed.
        """
        try:
            for place in (self.path, *(place for name in FOLDERS for place in _places(self.path / name))):
                clear_parts(place)
        except OSError as error:
            raise output_error(self.path, error) from error

    def _saved(self) -> list[str]:
        """Formats that the run here saved, as its manifest says."""
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            names = json.loads(self.manifest.read_bytes())["config"]["save"].split(",")
            return [name.strip() for name in names if name.strip() in EXPORTED]
        return []


def frame_of(state: Path) -> int:
    """The first frame that is still to do, of a state that stays."""
    return int(state.stem)


def no_run(flag: str, folder: Path) -> UsageError:
    """The error of a folder without a run to go on with."""
    if not folder.exists():
        return UsageError(f"{flag}: there is no folder {folder}; give the output folder of a run")
    other = "use --overwrite" if flag == "--resume" else "give the output folder of a run"
    return UsageError(f"{flag}: {folder} holds no run (no {MANIFEST}); {other}")


def _places(made: Path) -> list[Path]:
    """The folder of a format and the folders in it that it writes to."""
    inside = {made / Path(pattern).parent for pattern in FOLDERS[made.name]}
    return sorted({made, *inside, *(path.parent for path in inside if path != made)})


def _clear_made(made: Path) -> None:
    """Remove what a format writes into its folder, and every folder of it that is empty then: others may use them."""
    for pattern in FOLDERS[made.name]:
        for path in list(made.glob(pattern)):
            path.unlink()
    for place in reversed(_places(made)):
        clear_parts(place)
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
