"""Where a batch stands: one row per job, as a table on the terminal, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vidseg.atomic_files import atomic_file
from vidseg.outputs.layout import OVERLAY, REPORT, YTVIS
from vidseg_pipelines.batch.job_records import RUNNING, WAITING
from vidseg_pipelines.batch.leases import Owner
from vidseg_pipelines.batch.store import BatchRecords

STATES = ("done", "partial", "failed", "running", "waiting")
COLUMNS = ("name", "status", "frames", "objects", "seconds", "fps", "attempts", "worker", "input", "reason")
_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .7em;text-align:left;"
    "border-bottom:1px solid #ddd}td:nth-child(n+3):nth-child(-n+7){text-align:right}.failed{color:#b00}"
    ".partial{color:#a60}.done{color:#070}.running{color:#06c}"
)
_LINKS = (OVERLAY, REPORT, YTVIS)


@dataclass(frozen=True)
class Row:
    """A job and where it stands. Of one that runs, frames, seconds and fps are those of this attempt so far."""

    name: str
    status: str
    frames: int
    objects: int
    seconds: float
    fps: float
    attempts: int
    worker: str
    input: str
    reason: str
    total: int | None = None
    """Frames to do in this attempt, where that is known."""
    left_s: float | None = None
    """Seconds that a running job will take at its rate so far."""
    heartbeat_s: float | None = None
    """Seconds since the worker of a running job was last heard of."""


class Totals:
    """Counts rows that pass by."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.states: Counter[str] = Counter()
        self.frames, self.seconds = 0, 0.0
        self._ended_seconds = 0.0

    def counting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows."""
        for row in rows:
            self.states[row.status] += 1
            self.frames += row.frames
            self.seconds += row.seconds
            self._ended_seconds += 0.0 if row.status in (RUNNING, WAITING) else row.seconds
            yield row

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Totals:
        """Those of all rows."""
        totals = cls()
        deque(totals.counting(rows), maxlen=0)
        return totals

    @property
    def left_s(self) -> float | None:
        """Seconds until all have ended, if the others take as long as those that have; None: nobody can tell."""
        open_ = self.states[RUNNING] + self.states[WAITING]
        ended = self.states.total() - open_
        if not ended or not self.states[RUNNING]:
            return None if open_ else 0.0
        return round(self._ended_seconds / ended * open_ / self.states[RUNNING], 1)

    @property
    def headline(self) -> str:
        """``10 videos: 7 done, 3 failed``."""
        counts = self.states
        what = "1 video" if counts.total() == 1 else f"{counts.total()} videos"
        return f"{what}: " + (", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]) or "none")


def rows_of(store: BatchRecords, *, call: str = "") -> Iterator[Row]:
    """All jobs of a batch, or of one call of ``vidseg batch``, by name; as a stream.

    Raises:
        InputError: damaged records.
    """
    for record in store.rows(call=call):
        frames, seconds = record["frames"], record["seconds"]
        status, worker, left, heartbeat = record["status"], record["worker"], None, None
        if status == RUNNING and store.is_live(record):
            worker = str(Owner.read(record["owner"]) or "")
            seconds = max(record["beat"] - record["begun"], 0.0)
            heartbeat = round(max(store.now() - record["beat"], 0.0), 1)
            if record["total"] is not None and frames:
                left = round(max((record["total"] - frames) * seconds / frames - heartbeat, 0.0), 1)
        elif status in (RUNNING, WAITING):
            status, worker, frames, seconds = WAITING, "", 0, 0.0
        fps = round(frames / seconds, 3) if seconds else 0.0
        yield Row(
            *(record["name"], status, frames, record["objects"], round(seconds, 3), fps, record["attempts"], worker),
            *(record["input"], record["reason"], record["total"] if status == RUNNING else None, left, heartbeat),
        )


def write_summary(folder: Path, store: BatchRecords) -> tuple[Path, Path]:
    """Write ``summary.csv`` and ``summary.html`` into the batch's folder, row by row.

    Raises:
        OutputError: they cannot be written.
    """
    totals = Totals()
    with atomic_file(folder / "summary.csv") as file:
        text = io.TextIOWrapper(file, errors="backslashreplace", newline="", encoding="utf-8")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, column) for column in COLUMNS] for row in totals.counting(rows_of(store)))
        text.flush()
        text.detach()
    with atomic_file(folder / "summary.html") as file:
        for part in _html(folder, rows_of(store), totals, linked=store.outputs == folder):
            file.write(part.encode(errors="backslashreplace"))
    return folder / "summary.csv", folder / "summary.html"


def _html(folder: Path, rows: Iterable[Row], totals: Totals, *, linked: bool) -> Iterator[str]:
    total = f"{html.escape(totals.headline)}; {totals.frames} frames in {totals.seconds:.1f} s of work."
    yield (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(folder.name)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(folder.name)}</h1><p>{total}</p><table><tr>"
        + "".join(f"<th>{column}" for column in (*COLUMNS, "results"))
    )
    for row in rows:
        yield f'<tr class="{row.status}">' + "".join(f"<td>{cell}" for cell in _cells(folder if linked else None, row))
    yield "</table></html>\n"


def _cells(folder: Path | None, row: Row) -> list[str]:
    there = [] if folder is None else [name for name in _LINKS if (folder / row.name / name).exists()]
    links = " ".join(f'<a href="{quote(row.name)}/{name}">{name}</a>' for name in there)
    return [*(html.escape(str(getattr(row, column))) for column in COLUMNS), links]
