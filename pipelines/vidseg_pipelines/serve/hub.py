"""All sessions of a server: how many there may be, which are in memory, and where they are on the disk."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.errors import InputError, UsageError
from vidseg.files import is_pattern
from vidseg_pipelines.build import Models
from vidseg_pipelines.serve.models import Networks
from vidseg_pipelines.serve.served_session import Missing, ServedSession, TooMuch
from vidseg_pipelines.serve.store import SessionStore

_SESSIONS = "sessions"


@dataclass(frozen=True)
class Limits:
    """What one server may be asked for."""

    sessions: int = 64
    """Open sessions, in memory or on the disk."""
    in_memory: int = 8
    """Sessions in memory; the one that has rested longest makes room."""
    frames: int = 100_000
    """Frames of one session."""
    body: int = 64 << 20
    """Bytes of a request, but for uploads."""
    upload: int = 4 << 30
    """Bytes of an uploaded video."""
    waiting: int = 64
    """Requests that wait for a computation."""
    idle_s: float = 300.0
    """Seconds after which a session that nobody calls leaves the memory."""


class Outside(UsageError):
    """A path that is not below the root."""


class Hub:
    """The sessions below a state folder, and the videos below a root."""

    def __init__(self, root: Path, state: Path, load: Callable[[], Models], limits: Limits) -> None:
        """Find the sessions that an earlier server has left; ``load`` gives the models that all share.

        Raises:
            InputError: there is no folder ``root``. OutputError: ``state`` cannot be written.
        """
        if not root.is_dir():
            raise InputError(f"--root {root}: no such folder")
        self.root, self.limits, self._load = root.resolve(), limits, load
        self.folder = make_folder(state / _SESSIONS)
        self.uploads = state / "uploads"
        self._networks: Networks | None = None
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._sessions: OrderedDict[str, ServedSession] = OrderedDict()
        self._opening = 0
        for path in sorted(self.folder.iterdir()):
            with suppress(InputError):
                self._sessions[path.name] = ServedSession(SessionStore.load(path), self.networks)

    def networks(self) -> Networks:
        """The networks, loaded when they are first needed."""
        with self._loading:
            if self._networks is None:
                self._networks = Networks(self._load())
            return self._networks

    @property
    def ready(self) -> bool:
        """Whether the networks are loaded."""
        return self._networks is not None

    @property
    def ids(self) -> list[str]:
        """Ids of all open sessions."""
        with self._lock:
            return list(self._sessions)

    @property
    def in_memory(self) -> int:
        """Sessions that hold memory."""
        with self._lock:
            return sum(session.in_memory for session in self._sessions.values())

    def open(self, video: str | None, max_objects: int | None, detect_every: int) -> str:
        """A new session; its id.

        Raises:
            TooMuch: there are as many as there may be. Outside: the video is not below the root.
            InputError: it cannot be read. UsageError: wrong values.
        """
        path = None if video is None else self.find(video)
        with self._lock:
            if len(self._sessions) + self._opening >= self.limits.sessions:
                raise TooMuch(f"{self.limits.sessions} sessions are open, no more are allowed: close one")
            self._opening += 1
        try:
            return self._open(path, max_objects, detect_every)
        finally:
            with self._lock:
                self._opening -= 1

    def _open(self, path: Path | None, max_objects: int | None, detect_every: int) -> str:
        name = secrets.token_hex(8)
        settings = {"max_objects": max_objects, "detect_every": detect_every, "frames_limit": self.limits.frames}
        store = SessionStore.create(
            self.folder / name, {"video": None if path is None else str(path), "opened": time.time(), **settings}
        )
        session = ServedSession(store, self.networks)
        try:
            session.describe()  # reads the video, and refuses wrong values
        except BaseException:
            session.rest()
            store.remove()
            raise
        with self._lock:
            self._sessions[name] = session
        self.make_room(keep=name)
        return name

    def get(self, name: str) -> ServedSession:
        """An open session.

        Raises:
            Missing: there is none of this id.
        """
        with self._lock:
            if name not in self._sessions:
                raise Missing(f"session {name[:40]}: not open here; POST /v1/sessions opens one")
            self._sessions.move_to_end(name)
            return self._sessions[name]

    def close(self, name: str) -> None:
        """End a session and remove what it has left on the disk.

        Raises:
            Missing: there is none of this id.
        """
        session = self.get(name)
        with self._lock:
            del self._sessions[name]
        session.rest()
        session.store.remove()

    def find(self, video: str) -> Path:
        """The video of a path below the root, or of an upload.

        Raises:
            Outside: it leads out of the root. InputError: there is nothing.
        """
        if "\0" in video or is_pattern(video):
            raise Outside(f"video {video[:80]!r}: a path below the root of the server expected")
        for folder in (self.root, self.uploads):
            path = (folder / video).resolve()
            if path.is_relative_to(folder.resolve()) and path.exists():
                return path
        if not (self.root / video).resolve().is_relative_to(self.root):
            raise Outside(f"video {video[:80]!r}: not below the root of the server")
        raise InputError(f"video {video[:80]!r}: no such file below the root of the server")

    def make_room(self, keep: str | None = None) -> None:
        """Let sessions go from memory: those that nobody has called for long, and the oldest of too many."""
        now, resting = time.monotonic(), list[ServedSession]()
        with self._lock:
            there = [(name, session) for name, session in self._sessions.items() if session.in_memory and name != keep]
            too_many = len(there) + (keep is not None) - self.limits.in_memory
            for place, (_, session) in enumerate(there):
                if place < too_many or now - session.used > self.limits.idle_s:
                    resting.append(session)
        for session in resting:
            session.rest(wait=False)  # a busy one is not idle

    def rest(self) -> None:
        """Bring everything to the disk."""
        for session in list(self._sessions.values()):
            session.rest()
