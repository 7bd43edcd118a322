"""All masks of a batch as a few Parquet files, made from the journals of its videos."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from vidseg.atomic_files import make_folder
from vidseg.outputs.parquet import MaskTable, open_table
from vidseg_pipelines.batch.job_records import SHARDS, JobRecords
from vidseg_pipelines.remote_folder import folder_at


def write_shards(store: JobRecords, rows_per_file: int) -> list[Path]:
    """Write ``parquet/part-00000.parquet``, ... into the batch's folder: videos by name, each in one file.

    A file is closed when it holds ``rows_per_file`` rows or more, so that millions of videos are few files. Videos that
    failed or have not ended are left out; files of an earlier call beyond the last one are removed.

    Raises:
        UsageError: pyarrow is not installed. InputError: a journal is damaged. OutputError: a file cannot be written.
    """
    folder = make_folder(store.folder / SHARDS)
    paths: list[Path] = []
    with ExitStack() as stack:
        table: MaskTable | None = None
        for row in store.rows():
            run = folder_at(store.outputs / row["name"])
            if row["status"] not in ("done", "partial") or not run.has_journal:
                continue
            if table is None:
                paths.append(folder / f"part-{len(paths):05d}.parquet")
                table = stack.enter_context(open_table(paths[-1]))
            for masks in run.results():
                table.add(row["name"], masks)
            if table.rows >= rows_per_file:
                stack.close()  # each has its name now
                table = None
    for path in folder.glob("part-*.parquet"):
        if path not in paths:
            path.unlink()
    return paths
