"""Where a batch stands: one row per job, as a table on the terminal, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vidseg.atomic_files import atomic_file
from vidseg.outputs.layout import OVERLAY, REPORT, YTVIS
from vidseg_pipelines.batch.leases import Leases, since_planned
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
    """A job and where it stands; the fields are the columns of the CSV."""

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


def rows_of(store: BatchRecords, leases: Leases) -> list[Row]:
    """All jobs of a batch, by name.

    Raises:
        InputError: a damaged record.
    """
    attempts = leases.attempts()
    rows = []
    for job in store.jobs():
        result = store.result(job.key)
        made = attempts.get(job.key, [])
        if result is not None:
            fps = round(result.frames / result.seconds, 3) if result.seconds else 0.0
            values = (result.status, result.frames, result.objects, result.seconds, fps, result.attempts, result.worker)
            rows.append(Row(job.name, *values, job.config.input, result.reason))
        else:
            live = bool(made) and leases.is_live(made[-1])
            worker = str(made[-1].owner or "") if live else ""
            status = "running" if live else "waiting"
            rows.append(Row(job.name, status, 0, 0, 0.0, 0.0, len(since_planned(made)), worker, job.config.input, ""))
    return rows


def headline(rows: Sequence[Row]) -> str:
    """``10 videos: 7 done, 3 failed``."""
    counts = Counter(row.status for row in rows)
    return f"{len(rows)} videos: " + (", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]) or "none")


def write_summary(folder: Path, rows: Sequence[Row]) -> tuple[Path, Path]:
    """Write ``summary.csv`` and ``summary.html`` into the batch's folder.

    Raises:
        OutputError: they cannot be written.
    """
    paths = folder / "summary.csv", folder / "summary.html"
    for path, text in zip(paths, (_csv(rows), _html(folder, rows)), strict=True):
        with atomic_file(path) as file:
            file.write(text.encode(errors="backslashreplace"))
    return paths


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)
    return file.getvalue()


def _html(folder: Path, rows: Sequence[Row]) -> str:
    frames, seconds = sum(row.frames for row in rows), sum(row.seconds for row in rows)
    total = f"{html.escape(headline(rows))}; {frames} frames in {seconds:.1f} s of work."
    body = "".join(f'<tr class="{row.status}">' + "".join(f"<td>{c}" for c in _cells(folder, row)) for row in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(folder.name)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(folder.name)}</h1><p>{total}</p><table><tr>"
        + "".join(f"<th>{column}" for column in (*COLUMNS, "results"))
        + f"{body}</table></html>\n"
    )


def _cells(folder: Path, row: Row) -> list[str]:
    links = " ".join(
        f'<a href="{quote(row.name)}/{name}">{name}</a>' for name in _LINKS if (folder / row.name / name).exists()
    )
    return [*(html.escape(str(getattr(row, column))) for column in COLUMNS), links]
