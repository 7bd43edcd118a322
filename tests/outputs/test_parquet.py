from __future__ import annotations

import sys
from pathlib import Path

import pytest

from exports import COUNT, SIZE, exported, result, write_run
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.masks import area
from vidseg.outputs import parquet as module
from vidseg.outputs.parquet import COLUMNS, open_table
from vidseg_pipelines.run import run_video

pytest.importorskip("pyarrow")


def visible_rows() -> list[tuple[object, ...]]:
    """What the journal of the run holds, as rows."""
    rows: list[tuple[object, ...]] = []
    for index in range(COUNT):
        masks = result(index)
        for k, object_id in enumerate(masks.ids):
            if area(masks.rles[k]):
                place = (
                    index,
                    masks.time_s,
                    object_id,
                    masks.labels[k],
                    float(masks.scores[k]),
                    *masks.boxes[k].tolist(),
                )
                rows.append((*place, *SIZE, masks.rles[k].counts.decode()))
    return rows


@pytest.mark.parametrize("group", [1, 1 << 16])
def test_pyarrow_and_duckdb_read_every_object_of_every_frame(
    tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb, parquet = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(module, "GROUP_ROWS", group)
    path = exported("parquet", write_run(tmp_path / "run") / "masks.jsonl", tmp_path)
    table = parquet.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert [row[1:] for row in rows] == visible_rows()
    assert duckdb.sql(f"SELECT * FROM '{path}'").fetchall() == rows
    assert parquet.ParquetFile(path).num_row_groups == (COUNT if group == 1 else 1)


def test_a_table_that_is_not_finished_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_table(tmp_path / "x.parquet") as table:
        table.add("v", result(1))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_missing_extra_is_named_before_anything_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'vidseg\[parquet\]'"):
        run_video(RunConfig(input="missing.mp4", save="parquet", output=tmp_path / "out"))
