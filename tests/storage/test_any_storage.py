"""What runs and batches need of object storage: of the S3 server of the tests, or of the storage at $VIDSEG_TEST_URL.

    VIDSEG_TEST_URL=gs://bucket/empty python -m pytest tests/storage/test_any_storage.py

The bucket has to be there; what is below the URL is removed. Keys and endpoint are found as docs/storage.md says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from batch_toys import LOADERS, make_clip, make_mask
from vidseg import read_run, storage_lease
from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.storage import Storage, _described
from vidseg.types import VideoInfo
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import run_video
from vidseg_pipelines.streaming import Advance

pytestmark = pytest.mark.extras


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Nothing is below it."""
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    if (given := os.environ.get("VIDSEG_TEST_URL")) is None:
        return f"{request.getfixturevalue('there').url}/empty"
    Storage(given).delete(Storage(given).names())
    return given


def test_objects_are_written_described_listed_and_removed(url: str, tmp_path: Path) -> None:
    storage = Storage(url)
    assert storage.names() == {}
    assert (storage.describe("a"), storage.read("a"), storage.folders()) == (None, None, [])
    storage.put("a", b"first")
    first = storage.describe("a")
    assert first is not None
    assert first.size == 5
    assert first.modified is not None
    assert abs(first.modified - time.time()) < 3600, "a clock in seconds since 1970"
    storage.put("a", b"other")
    second = storage.describe("a")
    assert second is not None
    assert second.version != first.version, "of the same size, perhaps in the same second"
    data = bytes(range(256)) * 80_000  # more than a block
    (tmp_path / "sent").write_bytes(data)
    storage.upload(tmp_path / "sent", "day 1/b#c.bin")
    storage.download("day 1/b#c.bin", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    assert storage.names() == {"a": 5, "day 1/b#c.bin": len(data)}
    assert storage.folders() == ["day 1"]
    assert Storage(f"{url}/*/*.bin").matching() == [f"{url}/day 1/b#c.bin"]
    with pytest.raises(InputError, match="none: no such object"):
        storage.download("none", tmp_path / "got")
    storage.delete(["a", "none"])
    assert storage.names() == {"day 1/b#c.bin": len(data)}


def test_an_object_is_created_once(url: str) -> None:
    storage = Storage(url)
    assert storage.create("lock", b"mine")
    assert storage.create("lock", b"mine"), "the answer to the first attempt may have been lost"
    assert not storage.create("lock", b"yours")
    assert storage.read("lock") == b"mine"


def test_a_bucket_that_is_not_there_is_one_line(url: str) -> None:
    nowhere = f"{url.partition('://')[0]}://no-such-bucket-of-vidseg/run"
    with pytest.raises(OutputError, match=rf"^{nowhere}/run\.json: cannot be written: "):
        Storage(nowhere).put("run.json", b"{}")
    with pytest.raises(InputError, match=rf"^{nowhere}/clip\.mp4: no such object"):
        Storage(nowhere).download("clip.mp4", Path("none"))


def test_a_run_goes_on_after_a_break_and_its_folder_is_locked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(url)
    storage.upload(make_clip(tmp_path / "clip.mp4", 12), "in/clip.mp4")
    storage.upload(make_mask(tmp_path / "first.png"), "in/first.png")
    run, there = Storage(f"{url}/run"), f"{url}/run"
    config = RunConfig(
        input=f"{url}/in/clip.mp4", mask=(f"{url}/in/first.png",), output=Path(there), save="davis", refine="box"
    )
    run_video(replace(config, output=tmp_path / "here"), loaders=LOADERS)

    def start(info: VideoInfo, total: int | None) -> Advance:
        def advance(results: Sequence[FrameMasks]) -> None:
            raise KeyboardInterrupt

        return advance

    with pytest.raises(KeyboardInterrupt):
        run_video(config, loaders=LOADERS, on_start=start)
    assert "masks.jsonl" not in run.names(), "half of it"
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "another machine"))
    run.put("run.lock", json.dumps({"host": "far", "pid": 1, "born": "", "token": ""}).encode())
    with pytest.raises(UsageError, match="in use by another run"):
        run_video(replace(config, resume=True), loaders=LOADERS)
    monkeypatch.setattr(storage_lease, "STALE_S", -5.0)
    assert run_video(replace(config, resume=True), loaders=LOADERS).status == "done"
    assert run.names().keys() == {"run.json", "masks.jsonl", *(f"davis/{n:05d}.png" for n in range(12))}
    for name in ("masks.jsonl", "davis/00011.png"):
        assert run.read(name) == (tmp_path / "here" / name).read_bytes()
    assert len(list(read_run(there))) == 12
    assert main(["export", there, "--to", "coco"]) == 0
    assert "coco.json" in run.names()


def test_a_time_is_found_beside_the_same_as_text() -> None:
    """As gcsfs describes an object: without a time, a lock whose owner has died would never be free."""
    when = time.gmtime(1_700_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", when)
    found = _described({"size": 1, "updated": text, "mtime": datetime.fromisoformat(text)})
    assert found.modified == 1_700_000_000
    assert _described({"size": 1, "updated": text}).modified is None
