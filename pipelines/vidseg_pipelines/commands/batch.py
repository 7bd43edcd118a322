"""``vidseg batch`` and ``vidseg batch status``."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from vidseg.config import RunConfig, check_seconds, key_values
from vidseg.errors import InputError, UsageError
from vidseg.locks import file_lock
from vidseg.names import printable
from vidseg.registry import check_name
from vidseg.storage import object_url
from vidseg_pipelines.batch.job_records import Result
from vidseg_pipelines.batch.metrics import serving
from vidseg_pipelines.batch.remote import RemoteBatch
from vidseg_pipelines.batch.store import BatchRecords
from vidseg_pipelines.batch.summary import Row, Totals, rows_of, write_summary

if TYPE_CHECKING:
    from vidseg_pipelines.run import Loaders
    from vidseg_pipelines.run_summary import RunSummary

PARTLY_DONE = 5
LEASE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class BatchCommand(RunConfig):
    """Segment many videos into one folder; finished videos are skipped.

    Repeating the call with the same arguments continues where it stopped, even after a kill. One bad video does not
    stop the others; summary.csv and summary.html give the reason. See also `vidseg batch status DIR`.

    Examples:
      vidseg batch videos/ --output runs/all --workers 2
      vidseg batch 'day*/*.mp4' extra.mov --output runs/all --save davis
      vidseg batch jobs.csv --output runs/all   # columns input, output, box, point, mask, boxes, frames, max_objects
      vidseg batch jobs.csv --output runs/all --retry-failed
      vidseg batch videos/ --output /shared/all --engine slurm --workers 16 --engine-option gpus_per_node=1
    """

    CONFIG_IS_DEFAULTS: ClassVar[bool] = True

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")] = ()
    """Videos, folders of videos or of image folders, globs, and manifests (.csv, .jsonl) with settings per video."""
    output: Path | None = None
    """Folder for everything: one folder per video, summary.csv and summary.html; or its URL in object storage."""
    records: Path | None = None
    """With --output URL: folder for the records, which all machines that work on this batch share (default: one of this
    machine, with copies in the storage)."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """Where the workers run: processes here, Ray tasks (extra `ray`), or SLURM jobs (extra `slurm`)."""
    workers: int = 0
    """Number of workers; each loads the models once. 0: one per CUDA device, at least one."""
    engine_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE - a setting of Ray (address, num_gpus...) or submitit (slurm_partition, mem_gb...). May be repeated."""
    retry_failed: bool = False
    """Retry the videos that failed in an earlier call."""
    overwrite: bool = False
    """Process all of these videos again, replacing earlier results."""
    lease_timeout: float = LEASE_TIMEOUT_S
    """Seconds without a heartbeat after which a worker on another machine counts as dead."""
    video_timeout: float | None = None
    """Seconds that a video may take per attempt; after that it has failed."""
    video_memory: float | None = None
    """Memory in GiB that a worker may hold during a video; beyond that the video has failed."""
    metrics_port: int | None = None
    """Serve Prometheus metrics at this port of this machine (extra `metrics`)."""
    parquet_rows: int | None = None
    """Also write all masks into Parquet files of about so many rows, e.g. 1000000 (extra `parquet`)."""
    input: Annotated[str, tyro.conf.Suppress] = ""
    resume: Annotated[bool, tyro.conf.Suppress] = False
    continue_: Annotated[bool, tyro.conf.Suppress] = False

    def run(self) -> int:
        """Run all jobs; 5 when some failed or were only partly done."""
        return run_batch(self)

    def check(self) -> None:
        """Refuse invalid values, including the settings of a run (UsageError)."""
        super().check()
        if self.output is None:
            raise UsageError("--output DIR is required")
        if self.records is not None and not object_url(self.output):
            raise UsageError("--records is for an --output in object storage; in a folder they are in it")
        if self.engine != "local" and object_url(self.output) and self.records is None:
            raise UsageError(f"--engine {self.engine} with --output URL needs --records DIR, which all machines share")
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"--output {self.output} is a file; give a folder")
        if self.input or self.resume or self.continue_:
            raise UsageError("leave out 'input', 'resume' and 'continue': a batch has inputs and always resumes")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers}: expected 0 or more")
        check_seconds("--lease-timeout", self.lease_timeout)
        if self.video_timeout is not None:
            check_seconds("--video-timeout", self.video_timeout)
        if self.video_memory is not None and not self.video_memory > 0:
            raise UsageError(f"--video-memory {self.video_memory:g}: expected more than 0 GiB")
        if self.parquet_rows is not None:
            if self.parquet_rows < 1:
                raise UsageError(f"--parquet-rows {self.parquet_rows}: must be at least 1")
            from vidseg.outputs.parquet import check_parquet

            check_parquet()
        if self.metrics_port is not None and not 0 <= self.metrics_port < 65536:
            raise UsageError(f"--metrics-port {self.metrics_port}: expected 0 to 65535")


@dataclass(frozen=True)
class StatusCommand:
    """Show the progress of a batch; exit code 5 when some videos failed or were only partly done."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Output folder of the batch, its URL, or the folder of --records."""
    lease_timeout: float = LEASE_TIMEOUT_S
    """As for `vidseg batch`."""
    json: bool = False
    """Print all videos as one JSON object."""

    def run(self) -> int:
        """Print every job that is not simply done or waiting, and the counts."""
        check_seconds("--lease-timeout", self.lease_timeout)
        if (url := object_url(self.folder)) is not None:
            with tempfile.TemporaryDirectory() as name:
                RemoteBatch(url).fetch_copy(Path(name))
                return self._show(BatchRecords(Path(name), self.lease_timeout))
        return self._show(BatchRecords(self.folder, self.lease_timeout))

    def _show(self, store: BatchRecords) -> int:
        if not store.exists:
            raise InputError(f"{self.folder}: no batch was started there")
        store.check_version()
        totals = Totals()
        rows = totals.counting(rows_of(store))
        if self.json:
            for separator, row in zip(chain(['{"videos": ['], repeat(",\n")), rows, strict=False):
                sys.stdout.write(separator + json.dumps(dataclasses.asdict(row)))
            sys.stdout.write(("" if totals.states else '{"videos": [') + "],\n")
            sys.stdout.write(f'"counts": {json.dumps(totals.states)}, "left_s": {json.dumps(totals.left_s)}}}\n')
            return exit_code(totals)
        lines = [_line(row) for row in rows if row.status not in ("done", "waiting")]
        left = f"; about {totals.left_s:.0f} s left" if totals.left_s else ""
        sys.stdout.write("\n".join(map(printable, [totals.headline + left, *lines])) + "\n")
        return exit_code(totals)


def _line(row: Row) -> str:
    """A job for people: why it failed, or how far it is."""
    if row.status != "running":
        return f"{row.status:<8} {row.name}: {row.reason}"
    frames = f"{row.frames} frames" if row.total is None else f"{row.frames}/{row.total} frames"
    left = "" if row.left_s is None else f", {row.left_s:.0f} s left"
    seen = f", heartbeat {row.heartbeat_s:.0f} s ago"
    return f"{row.status:<8} {row.name}: {row.worker}, {frames}, {row.fps:.1f} fps{left}{seen}"


def run_batch(
    command: BatchCommand, *, loaders: Loaders | None = None, segment: Callable[..., RunSummary] | None = None
) -> int:
    """Plan the jobs, keep workers going until all have ended, write the summary; returns the exit code.

    ``loaders`` give the models, ``segment`` does a video; they are pickled to reach the workers.

    Raises:
        UsageError: wrong settings or inputs, or results in the folder that were made differently.
        WeightsError: no job can be done without them.
        OutputError: the folder cannot be written.
    """
    command.check()
    assert command.output is not None
    if (url := object_url(command.output)) is None:
        return _run_batch(command, Path(os.path.abspath(command.output)), loaders, segment)  # noqa: PTH100  (links stay)
    remote = RemoteBatch(url, command.records)
    with remote.claimed():
        return _run_batch(command, remote.folder, loaders, segment, planned=remote.send_records, shown=url)


def _run_batch(
    command: BatchCommand,
    folder: Path,
    loaders: Loaders | None,
    segment: Callable[..., RunSummary] | None,
    planned: Callable[[], None] = lambda: None,
    shown: str = "",
) -> int:
    """:func:`run_batch` with the records in ``folder``; ``planned()`` is called when all jobs are recorded."""
    check_name("tracker", command.tracker)
    if command.detector:
        check_name("detector", command.detector)
    options = key_values("--engine-option", command.engine_option)

    from vidseg_pipelines.batch.inputs import expand

    log = _Log(json_log=command.json_log)
    store = BatchRecords(folder, command.lease_timeout)
    base = RunConfig(**{f.name: getattr(command, f.name) for f in dataclasses.fields(RunConfig)})
    requests = expand(command.inputs, dataclasses.replace(base, overwrite=False), log.notice)

    import torch  # here, with what needs it: settings and inputs are checked without

    from vidseg.runtime import resolve_device
    from vidseg_pipelines.batch.executors import make_engine
    from vidseg_pipelines.batch.jobs import plan_jobs
    from vidseg_pipelines.batch.limits import VideoLimits
    from vidseg_pipelines.batch.shards import write_shards
    from vidseg_pipelines.batch.supervisor import supervise
    from vidseg_pipelines.batch.worker import WorkerSpec
    from vidseg_pipelines.run import Loaders, run_video

    if command.engine == "local":
        resolve_device(command.device)
    engine = make_engine(command.engine, store.root / command.engine, options)
    call = plan_jobs(store, requests, overwrite=command.overwrite, retry_failed=command.retry_failed)
    planned()
    local = command.engine == "local"
    workers = command.workers or max(1, torch.cuda.device_count() if local else 1)
    log.planned(*store.counts(call))
    spec = WorkerSpec(
        folder,
        call,
        command.lease_timeout,
        threads=max(1, torch.get_num_threads() // workers) if local else None,
        device=command.device if local else None,
        loaders=loaders or Loaders(),
        limits=VideoLimits(command.video_timeout, command.video_memory),
        segment=segment or run_video,
    )

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        with serving(store, command.metrics_port):
            supervise(store, spec, engine, workers=workers, on_end=log.ended)
    finally:
        signal.signal(signal.SIGTERM, previous)
        with file_lock(store.root / "summary.lock"):  # the last writer has read last
            table, page = write_summary(folder, store)
        totals = Totals.of(rows_of(store, call=call))
        store.end_call(call)
    if command.parquet_rows is not None:
        write_shards(store, command.parquet_rows)
    where = ", ".join(f"{shown}/{path.name}" if shown else str(path) for path in (page, table))
    sys.stdout.write(f"{totals.headline}\n" + printable(f"summary: {where}") + "\n")
    return exit_code(totals)


def exit_code(totals: Totals) -> int:
    """0, or 5 when a job failed or was only partly done."""
    return PARTLY_DONE if totals.states["failed"] or totals.states["partial"] else 0


class _Log:
    """Lines on standard error: inputs left out, and every job that ends."""

    def __init__(self, *, json_log: bool) -> None:
        self._total = self._done = 0
        self._json = json_log

    def planned(self, total: int, ended: int, failed: int) -> None:
        self._total, self._done = total, ended
        if ended and not self._json:
            again = f", {failed} had failed (--retry-failed tries again)" if failed else ""
            self._write(f"{ended - failed} of {total} videos were done before{again}")

    def notice(self, text: str) -> None:
        self._write(json.dumps({"event": "notice", "text": text}) if self._json else text)

    def ended(self, row: sqlite3.Row) -> None:
        self._done += 1
        if self._json:
            result = {field.name: row[field.name] for field in dataclasses.fields(Result)}
            text = json.dumps({"event": "job", "name": row["name"], **result})
        else:
            frames, objects = (
                f"{row[name]} {name[: -1 if row[name] == 1 else None]}" for name in ("frames", "objects")
            )
            told = f"{frames}, {objects}, {row['seconds']:.1f} s"
            about = row["reason"] if row["status"] == "failed" else told
            text = f"[{self._done}/{self._total}] {row['name']}: {row['status']}, {about}"
        self._write(text)

    def _write(self, text: str) -> None:
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()
