"""The records of a batch, in the folder ``.batch`` of its output folder: jobs, and how they ended.

    .batch/jobs/KEY.json        a job: its name and settings
    .batch/attempts/KEY.N       the N-th attempt at it (see leases)
    .batch/results/KEY.json     how it ended
    .batch/errors/KEY.txt       the traceback of an unexpected error

Every record is written once, complete, by one process: readers need no lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.config import RunConfig, from_mapping
from vidseg.errors import InputError, UsageError

RECORDS = ".batch"


@dataclass(frozen=True)
class Job:
    """One video: ``config`` without its output, which is the folder ``name`` of the batch."""

    name: str
    config: RunConfig

    @property
    def key(self) -> str:
        """What the job is known by: a digest of input, settings and name."""
        return hashlib.sha256(f"{self.config.digest()}\n{self.name}".encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Result:
    """How a job ended: "done", "partial" (a damaged video) or "failed"; ``reason`` is one line."""

    status: str
    reason: str = ""
    seconds: float = 0.0
    """Of the last attempt."""
    frames: int = 0
    objects: int = 0
    attempts: int = 1
    worker: str = ""


class BatchRecords:
    """Reads and writes the records of the batch in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read or created yet."""
        self.folder = folder
        self.root = folder / RECORDS
        self.attempts = self.root / "attempts"

    def create(self) -> None:
        """Make the folders.

        Raises:
            OutputError: they cannot be made.
        """
        for name in ("jobs", "attempts", "results", "errors"):
            make_folder(self.root / name)

    def jobs(self) -> list[Job]:
        """All jobs, by name.

        Raises:
            InputError: a record that is damaged.
        """
        jobs = [self._read_job(path) for path in (self.root / "jobs").glob("*.json")]
        return sorted(jobs, key=lambda job: job.name)

    def job(self, key: str) -> Job:
        """The job known by ``key``.

        Raises:
            InputError: the record is damaged or missing.
        """
        return self._read_job(self.root / "jobs" / f"{key}.json")

    def add(self, job: Job) -> None:
        """Record a job."""
        _write(self.root / "jobs" / f"{job.key}.json", {"name": job.name, "config": asdict(job.config)})

    def remove(self, key: str) -> None:
        """Forget a job and how it ended."""
        (self.root / "jobs" / f"{key}.json").unlink(missing_ok=True)
        self.forget_result(key)

    def finish(self, key: str, result: Result) -> None:
        """Record how a job ended."""
        _write(self.root / "results" / f"{key}.json", asdict(result))

    def finished(self) -> set[str]:
        """Keys of the jobs that have ended."""
        return {path.stem for path in (self.root / "results").glob("*.json")}

    def result(self, key: str) -> Result | None:
        """How a job ended, or None.

        Raises:
            InputError: the record is damaged.
        """
        path = self.root / "results" / f"{key}.json"
        data = _read(path)
        return None if data is None else from_mapping(Result, data, where=str(path))

    def forget_result(self, key: str) -> None:
        """The job is to be done (again)."""
        (self.root / "results" / f"{key}.json").unlink(missing_ok=True)

    def save_traceback(self, key: str, text: str) -> Path:
        """Keep the traceback of an unexpected error; returns where."""
        path = self.root / "errors" / f"{key}.txt"
        with atomic_file(path) as file:
            file.write(text.encode(errors="backslashreplace"))
        return path

    def abort(self, call: str, message: str, code: int) -> None:
        """Tell the call of ``vidseg batch`` that its workers cannot work at all."""
        _write(self.root / f"abort-{call}.json", {"message": message, "code": code})

    def aborted(self, call: str) -> tuple[str, int] | None:
        """(message, exit code) of :meth:`abort`, once."""
        path = self.root / f"abort-{call}.json"
        data = _read(path)
        if data is None:
            return None
        path.unlink(missing_ok=True)
        return data["message"], data["code"]

    def _read_job(self, path: Path) -> Job:
        data = _read(path)
        if data is None:
            raise InputError(f"{path}: no such job")
        try:
            config = from_mapping(RunConfig, data["config"], where=str(path))
            if Path(data["name"]).parts != (data["name"],) or data["name"] in ("..", RECORDS):
                raise InputError(f"{path}: {data['name']!r} is not a folder inside the batch's; delete this record")
            return Job(data["name"], dataclasses.replace(config, output=self.folder / data["name"]))
        except (UsageError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: from another version of vidseg ({error}); use another --output") from error


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot read the record ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged record; delete it to do its job again") from error
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(data, indent=1, default=str) + "\n").encode())
