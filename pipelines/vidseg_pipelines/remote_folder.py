"""A run folder in object storage: the run works in a folder of this machine, and what is whole there is uploaded.

While it goes on, every :data:`EVERY_S` seconds: files of single frames, and, in ``.resume/``, the state and what is new
of the journal, under names that nobody has used, before ``.resume/index.json`` names them. So a run that goes on
anywhere finds a state and the journal that belongs to it. At the end every file appears under its name, the manifest
last, and ``.resume/`` goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError, VidsegError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import read_journal
from vidseg.outputs.layout import EXPORTED, JOURNAL, LOCK, MANIFEST, OUTPUTS, SNAPSHOT
from vidseg.storage import ObjectPath, Storage, cache_folder, object_url
from vidseg.storage_lease import StorageLease, repeating
from vidseg_pipelines.manifest import read_manifest
from vidseg_pipelines.remote_mirror import INDEX, RESUME, Mirror, clear_resume, saves_of, written
from vidseg_pipelines.run_folder import FINISHED, RunFolder

EVERY_S = 20.0
"""Seconds between two uploads of a run's state."""
_UNSENT = "unsent.json"


class RemoteFolder:
    """The run folder at ``url``; ``work`` is the folder of this machine in which it is worked on."""

    def __init__(self, url: str) -> None:
        """Nothing is read yet.

        Raises:
            UsageError: the extra for such URLs is not installed.
        """
        self.url, self.path = url, ObjectPath(url)
        self.storage = Storage(url)
        place = cache_folder() / "work" / hashlib.sha256(url.encode()).hexdigest()[:24]
        self.work = place / (self.path.name or "run")
        self._unsent = place / _UNSENT

    @property
    def has_journal(self) -> bool:
        """Whether there are results."""
        return any(self.storage.describe(name) is not None for name in (JOURNAL, INDEX))

    def outputs(self, saves: Iterable[str] = ()) -> list[Path]:
        """None of this machine."""
        return []

    @contextmanager
    def claimed(self) -> Iterator[StorageLease]:
        """Keep every other process out, on any machine; errors name the URL.

        Raises:
            FolderInUseError: another process holds it. OutputError: it cannot be written.
        """
        try:
            with StorageLease(self.storage, LOCK) as lease:
                yield lease
        except VidsegError as error:
            error.args = (str(error).replace(str(self.work), self.url),)
            raise

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest of the run here, or None when there is none; an object that is none is a UsageError."""
        with self._here([MANIFEST]) as folder:
            return read_manifest(folder / MANIFEST)

    def results(self) -> Iterator[FrameMasks]:
        """What the journal holds so far, in order."""
        with self._here([]) as folder:
            self.fetch_journal(folder)
            yield from read_journal(folder / JOURNAL)

    def clear(self) -> None:
        """Remove what runs write, the manifest first; other objects stay."""
        names = self.storage.names()
        ours = written(names, saves_of(self.storage.read(MANIFEST)))
        self.storage.delete(sorted(ours, key=lambda name: name != MANIFEST))
        clear_resume(self.storage, names)

    def fetch(self, config: RunConfig) -> None:
        """Make the working folder: what the run of ``config`` needs of what is here."""
        if self._is_unsent() and not config.overwrite:
            return
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        names = self.storage.names()
        names = {name: size for name, size in names.items() if not name.startswith(LOCK)}
        if not names or config.overwrite:
            return
        if MANIFEST in names:
            self.storage.download(MANIFEST, self.work / MANIFEST)
        if not (config.resume or config.continue_) or MANIFEST not in names:
            (self.work / next(iter(names)).replace("/", "_")).touch()  # so that it is not empty either
            return
        finished = (read_manifest(self.work / MANIFEST) or {})["status"] in FINISHED
        if finished:
            clear_resume(self.storage, names)  # of a run that was killed at its very end
        if finished and not config.continue_:
            return
        for name in written(names, EXPORTED):
            if name not in (MANIFEST, JOURNAL, SNAPSHOT):
                self._fetch_file(name, self.work)
        self.fetch_journal(self.work)

    def fetch_journal(self, folder: Path) -> None:
        """The journal as far as it goes, and the state that belongs to it."""
        manifest = self.storage.read(MANIFEST)
        index = None
        if manifest is not None and json.loads(manifest).get("status") not in FINISHED:
            index = self.storage.read(INDEX)
        if index is None:
            if self.storage.describe(JOURNAL) is not None:
                self.storage.download(JOURNAL, folder / JOURNAL)
            return
        parts = json.loads(index)
        with (folder / JOURNAL).open("wb") as journal:
            for name in parts["journal"]:
                self.storage.download(f"{RESUME}/{name}", folder / "segment.part")
                with (folder / "segment.part").open("rb") as segment:
                    shutil.copyfileobj(segment, journal)
        (folder / "segment.part").unlink(missing_ok=True)
        if parts["snapshot"]:
            self.storage.download(f"{RESUME}/{parts['snapshot']}", folder / SNAPSHOT)

    @contextmanager
    def mirrored(self, lease: StorageLease, every_s: float | None = None) -> Iterator[None]:
        """Upload what the run in the working folder writes, until it is all there.

        Raises:
            OutputError: it cannot be written; what was computed stays in the working folder, and goes on from there.
        """
        mirror = Mirror(self.storage, self.work, lease)
        pause = EVERY_S if every_s is None else every_s
        try:
            with repeating(mirror.keep_up, pause, "vidseg-upload", (VidsegError, OSError)):
                yield
        finally:
            try:
                mirror.finish()
            except (OutputError, InputError) as error:
                with suppress(OSError):
                    self._unsent.write_text(_digest(*mirror.there))
                text = f"{error}; the results are kept in {self.work.parent} and go on from there with --resume"
                raise OutputError(text) from error
        shutil.rmtree(self.work.parent, ignore_errors=True)

    def written(self) -> list[ObjectPath]:
        """Files and folders that the run here has written."""
        ours = dict.fromkeys([*OUTPUTS, *(EXPORTED[name] for name in saves_of(self.storage.read(MANIFEST)))])
        there = {name.partition("/")[0] for name in self.storage.names()}
        return [self.path / name for name in ours if name in there]

    def _fetch_file(self, name: str, folder: Path) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.storage.download(name, target)

    @contextmanager
    def _here(self, names: Sequence[str]) -> Iterator[Path]:
        folder = cache_folder() / "work" / f"{uuid.uuid4().hex}.part"
        folder.mkdir(parents=True)
        try:
            for name in names:
                if self.storage.describe(name) is not None:
                    self._fetch_file(name, folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_unsent(self) -> bool:
        """Whether the working folder holds more than the storage, where nobody has written since."""
        try:
            known = self._unsent.read_text()
        except OSError:
            return False
        there = _digest(self.storage.read(MANIFEST), self.storage.read(INDEX))
        return known == there and (self.work / MANIFEST).is_file()


def folder_at(path: str | PurePath) -> RunFolder | RemoteFolder:
    """The run folder that a path or a URL of object storage stands for."""
    url = object_url(path)
    return RunFolder(Path(path)) if url is None else RemoteFolder(url)


def _digest(*parts: bytes | None) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
