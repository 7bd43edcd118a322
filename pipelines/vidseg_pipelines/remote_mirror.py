"""What of a working folder is in object storage already, and the order in which the rest follows."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from vidseg.names import is_part
from vidseg.outputs.layout import EXPORTED, FOLDERS, JOURNAL, LOCK, MANIFEST, OUTPUTS, SNAPSHOT
from vidseg.storage import Storage
from vidseg.storage_lease import StorageLease
from vidseg_pipelines.run_folder import FINISHED

RESUME = ".resume"
"""Where a run that has not ended keeps its state."""
INDEX = f"{RESUME}/index.json"
"""The journal's segments, in order, and the state that belongs to them."""
_SEGMENT = 64 << 20
_AT_A_TIME = 8


class Mirror:
    """Uploads what the run in the folder ``work`` writes; ``there``: manifest and index that the storage has now."""

    def __init__(self, storage: Storage, work: Path, lease: StorageLease) -> None:
        """Before the run begins; ``lease`` says whether the storage is still ours."""
        self._storage, self._work, self._lease = storage, work, lease
        self.there = [storage.read(MANIFEST), storage.read(INDEX)]
        self._goes_on = (work / MANIFEST).exists()
        old = written(storage.names(), saves_of(self.there[0]))
        self._stale = set(old) - {MANIFEST}  # of an earlier run: until this one has begun
        self._sent = {name: stamp for name in old if (stamp := _stamp(work / name)) is not None}
        self._snapshot: tuple[int, int] | None = None
        self._snapshot_name = ""
        self._segments: list[str] = []
        self._journal_id, self._offset = 0, 0
        self._begun = False

    def keep_up(self) -> None:
        """Upload what a run that goes on needs, if the run has begun and has not ended.

        Raises:
            OutputError, InputError: it cannot be written, or another run has taken over.
        """
        manifest = self._new_manifest()
        if manifest is None or _is_finished(manifest):
            return
        self._begin(manifest)
        self._send(name for name in self._files() if "/" in name)
        self._send_state()

    def finish(self) -> None:
        """Upload all that the run has written, the manifest last; nothing when the run has not begun.

        Raises:
            OutputError, InputError: as :meth:`keep_up`.
        """
        manifest = self._new_manifest()
        if manifest is None:
            return
        finished = _is_finished(manifest)
        self._begin(manifest)
        files = self._files()
        self._send(name for name in files if name != MANIFEST and (finished or name not in (JOURNAL, SNAPSHOT)))
        if not finished:
            self._send_state()
        self._put(0, MANIFEST, manifest)
        if finished:
            self._storage.delete(sorted(self._stale.difference(files)))
            clear_resume(self._storage, self._storage.names())

    def _new_manifest(self) -> bytes | None:
        """The manifest, if the run has begun: it says something else than the one that was fetched."""
        manifest = _bytes(self._work / MANIFEST)
        return None if manifest == self.there[0] and not self._begun else manifest

    def _begin(self, manifest: bytes) -> None:
        """Before anything else changes: no reader may take what is written now for what a run had finished."""
        self._lease.check()
        if self._begun:
            return
        if not self._goes_on and self.there[1] is not None:  # the state of the run that this one replaces
            self._storage.delete([INDEX])
            self.there[1] = None
        if _is_finished(manifest):
            manifest = json.dumps({**json.loads(manifest), "status": "running"}).encode()
        self._put(0, MANIFEST, manifest)
        if not self._goes_on:
            self._storage.delete(sorted(self._stale))
            clear_resume(self._storage, self._storage.names())
        self._begun = True

    def _put(self, place: int, name: str, data: bytes) -> None:
        if data != self.there[place]:
            self._storage.put(name, data)
            self.there[place] = data

    def _files(self) -> list[str]:
        found = [path for path in self._work.rglob("*") if not is_part(path) and path.name != LOCK and path.is_file()]
        return sorted(written((path.relative_to(self._work).as_posix() for path in found), EXPORTED))

    def _send(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(self._send_one, names))

    def _send_one(self, name: str) -> None:
        path = self._work / name
        stamp = _stamp(path)
        if stamp is None or self._sent.get(name) == stamp:
            return
        with suppress(FileNotFoundError):  # gone meanwhile
            self._storage.upload(path, name)
            self._sent[name] = stamp

    def _send_state(self) -> None:
        """First a hold on the state, then the journal, which has every frame before it, and the index last."""
        held = self._work.parent / f"{uuid.uuid4().hex}.part"
        with suppress(OSError):
            os.link(self._work / SNAPSHOT, held)
        before = {*self._segments, self._snapshot_name}
        try:
            self._send_journal()
            stamp = _stamp(held)
            if stamp is not None and stamp != self._snapshot:
                name = f"{uuid.uuid4().hex}.safetensors"
                self._storage.upload(held, f"{RESUME}/{name}")
                self._snapshot_name = name
            self._snapshot_name = self._snapshot_name if stamp is not None else ""
            self._snapshot = stamp
        finally:
            held.unlink(missing_ok=True)
        index = {"journal": self._segments, "snapshot": self._snapshot_name}
        self._put(1, INDEX, json.dumps(index).encode())
        old = before.difference([*self._segments, self._snapshot_name, ""])
        self._storage.delete(f"{RESUME}/{name}" for name in sorted(old))

    def _send_journal(self) -> None:
        """New whole lines, as another segment; all of it where it is another file than before."""
        with suppress(FileNotFoundError), (self._work / JOURNAL).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._journal_id or status.st_size < self._offset:
                self._segments, self._journal_id, self._offset = [], status.st_ino, 0
            file.seek(self._offset)
            while data := file.read(_SEGMENT):
                data = data[: data.rfind(b"\n") + 1]
                if not data:
                    return
                name = f"{self._offset:016d}-{uuid.uuid4().hex[:8]}.jsonl"
                self._storage.put(f"{RESUME}/{name}", data)
                self._segments = [*self._segments, name]
                self._offset += len(data)
                file.seek(self._offset)


def written(names: Iterable[str], saves: Iterable[str]) -> list[str]:
    """Those of some names that runs which save these formats write."""
    ours = {*OUTPUTS, *(EXPORTED[name] for name in saves)}
    return [name for name in names if _is_ours(PurePosixPath(name), ours)]


def saves_of(manifest: bytes | None) -> list[str]:
    """The formats that the run of a manifest saves."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        names = json.loads(manifest or b"")["config"]["save"].split(",")
        return [name.strip() for name in names if name.strip() in EXPORTED]
    return []


def clear_resume(storage: Storage, names: Iterable[str]) -> None:
    """Remove the state of a run, its index first."""
    storage.delete(sorted((n for n in names if n.startswith(f"{RESUME}/")), key=lambda name: name != INDEX))


def _is_ours(path: PurePosixPath, ours: set[str]) -> bool:
    top, *rest = path.parts
    if top not in ours or (top in FOLDERS) != bool(rest):
        return False
    inside = PurePosixPath(*rest)
    return not rest or any(
        len(PurePosixPath(pattern).parts) == len(rest) and inside.match(pattern) for pattern in FOLDERS[top]
    )


def _is_finished(manifest: bytes) -> bool:
    return json.loads(manifest)["status"] in FINISHED


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes with a file's content."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size
