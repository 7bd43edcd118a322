"""Apache Parquet: a row per object and frame, for data frames and SQL (the extra ``parquet``).

A file may hold many videos. It is written in groups of rows, so memory does not grow with it, and takes its name when
it is complete.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.layout import PARQUET
from vidseg.outputs.recording import Recording

GROUP_ROWS = 1 << 16
COLUMNS = ("video", "frame", "time_s", "id", "label", "score", "x0", "y0", "x1", "y1", "height", "width", "rle")


def write_parquet(recording: Recording, folder: Path) -> Generator[None, FrameMasks | None, None]:
    """Write ``FOLDER/masks.parquet``: see :class:`MaskTable` for the columns.

    Raises:
        UsageError: pyarrow is not installed. OutputError: the file cannot be written.
    """
    with open_table(folder / PARQUET) as table:
        while (masks := (yield)) is not None:
            table.add(recording.video, masks)


@contextmanager
def open_table(path: Path) -> Iterator[MaskTable]:
    """A table to add to, in the file ``path`` when the block ends without an error.

    Raises:
        UsageError: pyarrow is not installed. OutputError: the file cannot be written.
    """
    arrow, parquet = _pyarrow()
    with atomic_file(path) as file, parquet.ParquetWriter(file, _schema(arrow), compression="zstd") as writer:
        table = MaskTable(arrow, writer)
        yield table
        table.flush()


class MaskTable:
    """Rows of a Parquet file.

    ``video`` and ``label`` (null: none) are texts, ``frame`` and ``id`` integers, ``time_s`` seconds. ``x0``, ``y0``,
    ``x1``, ``y1`` are the box in pixels, right and bottom exclusive. ``rle`` is the mask as compressed COCO
    run-lengths, ``{"size": [height, width], "counts": rle}`` for pycocotools.
    """

    def __init__(self, arrow: Any, writer: Any) -> None:
        """See :func:`open_table`."""
        self._arrow, self._writer = arrow, writer
        self._columns: list[list[Any]] = [[] for _ in COLUMNS]
        self.rows = 0

    def add(self, video: str, masks: FrameMasks) -> None:
        """The objects of a frame."""
        count = len(masks.ids)
        if not count:
            return
        columns: tuple[Iterable[Any], ...] = (
            *([video] * count, [masks.frame_index] * count, [masks.time_s] * count),
            *(masks.ids, masks.labels, masks.scores.tolist(), *masks.boxes.T.tolist()),
            [rle.height for rle in masks.rles],
            [rle.width for rle in masks.rles],
            [rle.counts.decode("ascii") for rle in masks.rles],
        )
        for column, values in zip(self._columns, columns, strict=True):
            column.extend(values)
        self.rows += count
        if len(self._columns[0]) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._columns[0]:
            self._writer.write_table(self._arrow.table(self._columns, schema=self._writer.schema))
            self._columns = [[] for _ in COLUMNS]


def _schema(arrow: Any) -> Any:
    types = (
        *(arrow.string(), arrow.int64(), arrow.float64(), arrow.int64(), arrow.string(), arrow.float32()),
        *[arrow.float32()] * 4,
        *(arrow.int32(), arrow.int32(), arrow.string()),
    )
    return arrow.schema(list(zip(COLUMNS, types, strict=True)))


def check_parquet() -> None:
    """Refuse (UsageError) where pyarrow is not installed, before anything is computed."""
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet files need the extra 'parquet': pip install 'vidseg[parquet]'") from error
    return pyarrow, pyarrow.parquet
