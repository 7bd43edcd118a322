"""Who works on what: leases as files on a file system that all workers share.

The N-th attempt at a job is the file ``KEY.N``, created exclusively, so that one worker gets it. Its owner touches it
now and then (the heartbeat) and, when it stops in an orderly way, adds ``KEY.N.end``. Attempt N + 1 may begin when N
has ended or its owner is dead: on the same machine when that process no longer exists, on another when the heartbeat
is older than the timeout by the file system's own clock. Attempts are never removed, so that a slow worker that found
attempt N dead can only fail to create N + 1. A worker that was suspended, lost its lease meanwhile and wakes up, ends
at its first heartbeat.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vidseg.errors import output_error

PLANNING = "planning"
"""The call of an owner that is no worker: a job was planned anew, and what was attempted before does not count."""

_BEATS_PER_TIMEOUT = 6
_END = ".end"
_UNKNOWN = "?"


@dataclass(frozen=True)
class Owner:
    """A worker: ``call`` is the call of ``vidseg batch`` that started it, ``born`` when its process began."""

    call: str
    number: int
    host: str
    pid: int
    born: str

    @classmethod
    def this_process(cls, call: str, number: int) -> Owner:
        """The worker that this process is."""
        return cls(call, number, host_name(), os.getpid(), process_born(os.getpid()))

    def __str__(self) -> str:
        """For people."""
        return f"{self.host.partition('/')[0]}:{self.pid}"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a job; ``owner`` is None while its file is being written."""

    key: str
    number: int
    ended: bool
    path: Path

    @property
    def owner(self) -> Owner | None:
        """Who made it."""
        try:
            return Owner(**json.loads(self.path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def since_planned(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those of ``attempts`` at a job that workers made since it was last planned anew."""
    owners = [attempt.owner for attempt in attempts]
    plans = [place for place, owner in enumerate(owners) if owner is not None and owner.call == PLANNING]
    return list(attempts[plans[-1] + 1 :]) if plans else list(attempts)


class Leases:
    """The leases in ``folder``. ``timeout_s`` is the age of a heartbeat that means death on another machine."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        """Name the folder."""
        self.folder, self.timeout_s = folder, timeout_s

    def attempts(self) -> dict[str, list[Attempt]]:
        """All attempts at every job, in order."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        attempts: dict[str, list[Attempt]] = {}
        for name in sorted(names):
            key, _, number = name.partition(".")
            if number.isdecimal():
                attempts.setdefault(key, []).append(Attempt(key, int(number), name + _END in names, self.folder / name))
        return attempts

    def is_live(self, attempt: Attempt) -> bool:
        """Is somebody working on it?"""
        if attempt.ended:
            return False
        owner = attempt.owner
        if owner is not None and owner.host == host_name():
            born = process_born(owner.pid)
            if born != _UNKNOWN:
                return born == owner.born  # another birth: another process that got the same id
        try:
            return self._now() - attempt.path.stat().st_mtime <= self.timeout_s
        except FileNotFoundError:
            return False
        except OSError:  # a hiccup of the network file system is no death
            return True

    def take(self, key: str, after: int, owner: Owner) -> Lease | None:
        """Begin attempt ``after + 1`` at a job, or None when another worker was faster.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.folder / f"{key}.{after + 1:04d}"
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(asdict(owner), file)
        except FileExistsError:
            return None
        except OSError as error:
            raise output_error(path, error) from error
        return Lease(path, self.folder / f"{key}.{after + 2:04d}", self.timeout_s / _BEATS_PER_TIMEOUT)

    def _now(self) -> float:
        """Time by the clock of the file system, which all workers share."""
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return os.fstat(file.fileno()).st_mtime


class Lease:
    """The right to work on a job, kept alive by a thread inside a ``with`` block."""

    def __init__(self, path: Path, successor: Path, beat_s: float) -> None:
        """See :meth:`Leases.take`."""
        self._path, self._successor, self._beat_s = path, successor, beat_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="vidseg-lease", daemon=True)

    def __enter__(self) -> Lease:
        """Start the heartbeat."""
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        """The attempt has ended, whatever came of it."""
        self._stop.set()
        self._thread.join()
        end_attempts([self._path])

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            with suppress(OSError):  # a hiccup of the network file system: the next beat looks again
                if self._successor.exists():
                    # This process slept so long that its job was given away: any further write would damage the files
                    # of the new owner.
                    os._exit(1)
                os.utime(self._path)


def end_attempts(paths: Iterable[Path]) -> None:
    """Mark attempts as ended."""
    for path in paths:
        with suppress(OSError):
            path.with_name(path.name + _END).touch()


def host_name() -> str:
    """This machine since its last start, and inside containers this space of process ids."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_born(pid: int) -> str:
    """When a process of this machine began, empty when there is none, "?" where only its existence can be told."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]  # a zombie is dead
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return _UNKNOWN
