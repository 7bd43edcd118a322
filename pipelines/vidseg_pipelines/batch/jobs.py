"""From requests to jobs: safe, unique, stable names of output folders; what is done already is left alone."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from vidseg.errors import UsageError, output_error
from vidseg.locks import file_lock
from vidseg.names import safe_name
from vidseg.outputs.folder import keep_apart
from vidseg_pipelines.batch.inputs import Request
from vidseg_pipelines.batch.leases import PLANNING, Leases, Owner, end_attempts
from vidseg_pipelines.batch.store import BatchRecords, Job
from vidseg_pipelines.manifest import differences
from vidseg_pipelines.run_folder import RunFolder
from vidseg_pipelines.run_inputs import files_of, input_files


def plan_jobs(
    store: BatchRecords,
    leases: Leases,
    requests: Sequence[Request],
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> list[Job]:
    """The jobs of a call of ``vidseg batch``, recorded in ``store`` with a folder for each.

    A request that was made before gets the same folder again; a new one gets a name that no folder and no job has. The
    same request twice is one job. ``overwrite`` makes all of them again, ``retry_failed`` those that failed.
    Other calls may plan at the same time.

    Raises:
        UsageError: without ``overwrite``, results that were made with other settings or of another input; results that
            are just being made and are to be made again; an input among the results that ``overwrite`` replaces.
        OutputError: the folder cannot be written.
    """
    store.create()
    with file_lock(store.root / "plan.lock"):  # calls that begin at the same moment plan one after the other
        return _Plan(store, leases, overwrite, retry_failed).jobs(requests)


class _Plan:
    def __init__(self, store: BatchRecords, leases: Leases, overwrite: bool, retry_failed: bool) -> None:
        self.store, self.leases, self.overwrite, self.retry_failed = store, leases, overwrite, retry_failed
        self.attempts = leases.attempts()
        self.by_digest: dict[str, list[Job]] = {}  # jobs that no request has claimed yet
        self.by_input: dict[str, list[Job]] = {}
        self.names: set[str] = set()
        self.last_video = 0
        for job in store.jobs():
            self.names.add(job.name)
            self.last_video = max(self.last_video, job.config.video_id)
            self.by_digest.setdefault(job.config.digest(), []).append(job)
            self.by_input.setdefault(job.config.input, []).append(job)

    def jobs(self, requests: Sequence[Request]) -> list[Job]:
        wanted = {(r.config.digest(), _base(r)): r for r in requests}
        known: dict[tuple[str, str], Job] = {}
        for digest, base in wanted:  # first all that are known, so that no other request takes their folder
            if (job := self._claim(self.by_digest.get(digest, []), base)) is not None:
                known[digest, base] = job
        replaced: dict[tuple[str, str], Job] = {}
        for (digest, base), request in wanted.items():
            others = [] if (digest, base) in known else self.by_input.get(request.config.input, [])
            if (job := self._claim(others, base)) is not None:
                replaced[digest, base] = job
        cleared = [*replaced.values(), *(known.values() if self.overwrite else ())]
        keep_apart(
            (file for request in wanted.values() for file in input_files(request.config)),
            (file for job in cleared for file in self._folder(job).outputs(job.config.saves)),
        )
        for job in known.values():
            self._reuse(job)
        for identity, request in wanted.items():
            if identity not in known:
                known[identity] = self._add(request, identity[1], replaced.get(identity))
        return [known[identity] for identity in wanted]

    def _add(self, request: Request, base: str, old: Job | None) -> Job:
        """Record a new job, in the folder of the ``old`` one that it replaces, if any."""
        if old is not None:
            self._replace(old, request)
        name = old.name if old is not None else self._new_folder(base)
        self.last_video = max(self.last_video + 1, request.config.video_id)
        video_id = self.last_video if old is None else old.config.video_id
        job = Job(name, dataclasses.replace(request.config, output=self.store.folder / name, video_id=video_id))
        self.store.add(job)
        return job

    def _claim(self, jobs: list[Job], base: str) -> Job | None:
        fitting = [job for job in jobs if re.fullmatch(re.escape(base) + r"(-\d+)?", job.name)]
        if not fitting:
            return None
        job = fitting[0]
        self.by_digest[job.config.digest()].remove(job)
        self.by_input[job.config.input].remove(job)
        return job

    def _reuse(self, job: Job) -> None:
        """The same job again: forget its result if it is to be made again."""
        result, folder = self.store.result(job.key), self._folder(job)
        if self.overwrite:
            self._reset(job, clear=True)
        elif result is not None and result.status == "failed":
            if self.retry_failed:
                self._reset(job)
        elif result is not None:
            manifest = folder.read_manifest()
            if manifest is None:
                self._reset(job)
                return
            now = files_of(job.config)
            # Files that are gone are no difference: what is done is done.
            then = {part: {name: manifest[part].get(name) for name in now[part]} for part in now}
            if found := differences(then, now):
                what = f"was made of another file of that name ({found})"
                raise UsageError(f"{folder.path} {what}: use --overwrite or another --output")

    def _replace(self, old: Job, request: Request) -> None:
        """The same input with other settings."""
        folder = self._folder(old)
        if not self.overwrite and (self.store.result(old.key) or folder.read_manifest()):
            found = differences({"config": old.config.content()}, {"config": request.config.content()})
            raise UsageError(
                f"{folder.path} was made with other settings ({found}): use --overwrite or another --output"
            )
        self._reset(old, clear=True)
        self.store.remove(old.key)

    def _reset(self, job: Job, *, clear: bool = False) -> None:
        """Forget the result of a job and its earlier attempts, and ``clear`` its folder; no worker begins meanwhile."""
        folder = self._folder(job)
        attempts = self.attempts.get(job.key, [])
        last = attempts[-1].number if attempts else 0
        busy = bool(attempts) and self.leases.is_live(attempts[-1])
        lease = None if busy else self.leases.take(job.key, last, Owner.this_process(PLANNING, 0))
        if lease is None:
            raise UsageError(f"{folder.path} is being made by another vidseg batch: stop that first")
        with lease, folder.claimed() if clear else nullcontext():
            end_attempts(attempt.path for attempt in attempts if not attempt.ended)
            self.store.forget_result(job.key)
            if clear:
                folder.clear()

    def _folder(self, job: Job) -> RunFolder:
        return RunFolder(self.store.folder / job.name)

    def _new_folder(self, base: str) -> str:
        """Create ``base`` or ``base-2``, ``base-3``...

        Creating it is what makes the name ours. The folder of a job that failed may be gone; its name is not free.
        """
        for number in itertools.count(1):
            name = base if number == 1 else f"{base}-{number}"
            if name in self.names:
                continue
            try:
                (self.store.folder / name).mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise output_error(self.store.folder / name, error) from error
            self.names.add(name)
            return name
        raise AssertionError


def _base(request: Request) -> str:
    path = Path(request.config.input)
    return safe_name(request.name or (path.name if path.is_dir() else path.stem))
