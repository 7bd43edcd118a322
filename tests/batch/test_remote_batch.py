from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet
import pytest

import batch_toys
from batch_toys import LOADERS, ThreadEngine, make_clip, make_mask
from object_storage import Bucket
from vidseg import read_run
from vidseg.storage import Storage
from vidseg_pipelines.batch import executors, supervisor
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands import batch as batch_command
from vidseg_pipelines.commands.batch import run_batch

pytestmark = pytest.mark.extras


@pytest.fixture
def there(there: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(supervisor, "POLL_S", 0.02)
    monkeypatch.setattr(batch_command, "run_batch", partial(run_batch, loaders=LOADERS))
    monkeypatch.setattr(executors, "make_engine", lambda *a: ThreadEngine())
    make_mask(tmp_path / "first.png")
    there.put("in/first.png", (tmp_path / "first.png").read_bytes())
    for name in ("a", "b"):
        there.put(f"in/{name}.mp4", make_clip(tmp_path / f"{name}.mp4", 3).read_bytes())
    return there


def test_a_batch_from_and_into_object_storage_also_on_another_machine(
    there: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there.put("in/jobs.csv", b"input,mask\na.mp4,first.png\nnone.mp4,first.png\n")
    there.put("out/none/mine.txt", b"a name that is taken")
    args = ["batch", "s3://bucket/in/jobs.csv", "--output", "s3://bucket/out", "--save", "ytvis", "--refine", "box"]
    assert main([*args, "--parquet-rows", "100"]) == 5
    printed = capsys.readouterr()
    assert "2 videos: 1 done, 1 failed" in printed.out
    assert "summary: s3://bucket/out/summary.html, s3://bucket/out/summary.csv" in printed.out
    assert {"a/run.json", "a/masks.jsonl", "a/ytvis.json", ".batch/batch.sqlite"} < there.names("out")
    assert ".batch/batch.lock" not in there.names("out")
    assert "none-2,failed" in there.get("out/summary.csv").decode()
    (tmp_path / "rows.parquet").write_bytes(there.get("out/parquet/part-00000.parquet"))
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet").num_rows == sum(
        len(masks.ids) for masks in read_run("s3://bucket/out/a")
    )

    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "another machine"))
    first = there.get("out/a/run.json")
    more = [args[0], "s3://bucket/in/b*.mp4", *args[1:], "--mask", "s3://bucket/in/first.png", "--retry-failed"]
    assert main(more) == 5
    assert "1 of 3 videos were done before" in capsys.readouterr().err
    assert there.get("out/a/run.json") == first
    assert main(["batch", "status", "s3://bucket/out", "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["status"] for row in told["videos"]} == {"a": "done", "b": "done", "none-2": "failed"}
    assert main([*args, "--overwrite"]) == 5
    assert there.get("out/a/run.json") != first
    assert main(["batch", "status", "s3://bucket/nothing"]) == 3


def test_what_was_done_after_the_last_copy_of_the_records_is_not_done_again(
    there: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine is lost when the storage has the records as they were planned, and all results."""
    upload, copies = Storage.upload, list[bytes]()

    def upload_and_keep(self: Storage, path: Path, name: str) -> None:
        copies.extend([path.read_bytes()] if name.endswith(".sqlite") else [])
        upload(self, path, name)

    monkeypatch.setattr(Storage, "upload", upload_and_keep)
    args = ["batch", "s3://bucket/in/a.mp4", "--mask", "s3://bucket/in/first.png", "--output", "s3://bucket/out"]
    assert main([*args, "--save", "none", "--refine", "box"]) == 0
    assert len(copies) > 1
    capsys.readouterr()
    there.put("out/.batch/batch.sqlite", copies[0])
    before = there.get("out/a/run.json")
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "another machine"))
    idle = replace(LOADERS, tracker=batch_toys.crash)  # type: ignore[arg-type]
    monkeypatch.setattr(batch_command, "run_batch", partial(run_batch, loaders=idle))
    assert main([*args, "--save", "none", "--refine", "box"]) == 0
    told = capsys.readouterr()
    assert "[1/1] a: done, 3 frames, 2 objects" in told.err and told.out.startswith("1 video: 1 done\n")
    assert there.get("out/a/run.json") == before


def test_two_calls_do_not_have_the_same_records(there: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    record = b'{"host": "far away", "pid": 1, "born": "", "token": ""}'
    there.put("out/.batch/batch.lock", record)
    args = ["batch", "s3://bucket/in/a.mp4", "--output", "s3://bucket/out"]
    assert main(args) == 2
    assert "s3://bucket/out is in use by another run" in capsys.readouterr().err


def test_machines_that_share_a_folder_of_records(
    there: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "batch",
        str(tmp_path / "a.mp4"),
        "--mask",
        str(tmp_path / "first.png"),
        "--refine",
        "box",
        "--save",
        "none",
    ]
    where = ["--output", "s3://bucket/out", "--records", str(tmp_path / "records")]
    assert main([*args, *where]) == 0
    assert there.names("out") == {"a/run.json", "a/masks.jsonl", "summary.csv", "summary.html"}
    assert main(["batch", "status", str(tmp_path / "records")]) == 0
    assert main([*args, "--output", str(tmp_path / "out"), *where[2:]]) == 2
    assert "--records is for an --output in object storage" in capsys.readouterr().err
    assert main([*args, *where[:2], "--engine", "ray"]) == 2
    assert "needs --records DIR" in capsys.readouterr().err
