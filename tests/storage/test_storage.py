from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import fsspec.config
import pytest

from object_storage import Bucket, Fault
from vidseg import storage_lease
from vidseg.errors import InputError, OutputError, UsageError, VidsegError
from vidseg.storage import ObjectPath, Storage, object_url, url_of
from vidseg.storage_cache import here
from vidseg.storage_lease import StorageLease

pytestmark = pytest.mark.extras
VIDEO = bytes(range(256)) * 40


@pytest.fixture
def there(there: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr("vidseg.storage._BLOCK", 4096)  # so that a video has some
    return there


def test_urls_also_those_of_which_path_dropped_a_slash() -> None:
    assert url_of(Path("s3://bucket/a b/c.mp4")) == url_of("s3://bucket/a b/c.mp4") == "s3://bucket/a b/c.mp4"
    assert url_of("clip.mp4") is url_of("/s3://x") is url_of("rtsp://camera/1") is object_url(None) is None
    assert object_url("gs://b/run/") == "gs://b/run"
    assert object_url("https://server/x.png") is None
    assert str(ObjectPath("s3://bucket/run") / "masks.jsonl") == "s3://bucket/run/masks.jsonl"
    assert isinstance(ObjectPath("s3://bucket/run").parent, PurePosixPath)


def test_a_copy_is_whole_kept_and_replaced_when_the_object_changes(there: Bucket) -> None:
    url = there.put("day 1/clip.mp4", VIDEO)
    copy = here(Path(url))
    assert copy.name == "clip.mp4"
    assert copy.read_bytes() == VIDEO
    there.requests.clear()
    assert here(url) == copy
    assert [method for method, _ in there.requests] == ["HEAD"]
    there.put("day 1/clip.mp4", VIDEO[::-1])
    assert here(url).read_bytes() == VIDEO[::-1]
    assert here("clip.mp4") == Path("clip.mp4")
    with pytest.raises(InputError, match=r"^s3://bucket/none\.mp4: no such object$"):
        here("s3://bucket/none.mp4")
    with pytest.raises(InputError, match="no such object"):
        here("s3://bucket/day 1")


@pytest.mark.parametrize("kind", ["busy", "cut", "short", "slow"])
def test_answers_that_fail_are_asked_for_again(there: Bucket, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "slow":
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.4}})
    url = there.put("clip.mp4", VIDEO)
    there.faults.append(Fault("GET", "clip.mp4", kind, times=2))
    assert here(url).read_bytes() == VIDEO
    assert there.faults[0].times == 0


@pytest.mark.parametrize("kind", ["short", "forbidden"])
def test_answers_that_never_come_right_leave_no_copy(there: Bucket, tmp_path: Path, kind: str) -> None:
    url = there.put("clip.mp4", VIDEO)
    there.faults.append(Fault("GET", "clip.mp4", kind, times=10**6))
    reason = "2048 bytes instead of 4096" if kind == "short" else "not now"
    with pytest.raises(InputError, match=rf"^s3://bucket/clip\.mp4: cannot be read: .*{reason}"):
        here(url)
    assert [path for path in (tmp_path / "cache/objects").rglob("*") if path.suffix != ".lock"] == []
    assert len(there.requests) < 30


def test_an_object_that_changes_while_it_is_read_is_no_mixture_of_both(
    there: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = there.put("clip.mp4", VIDEO)
    block = Storage._block

    def change(self: Storage, name: str, start: int, end: int) -> bytes:
        if start == 4096:
            there.put("clip.mp4", VIDEO[::-1])
        return block(self, name, start, end)

    monkeypatch.setattr(Storage, "_block", change)
    with pytest.raises(InputError, match="changed while it was read"):
        here(url)


def test_what_was_used_longest_ago_makes_room(there: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_CACHE_GB", "0.000025")
    copies = [here(there.put(f"{name}.mp4", VIDEO)) for name in "ab"]
    for age, copy in zip((500, 900), copies, strict=True):
        os.utime(copy.parent, (time.time() - age,) * 2)
    here("s3://bucket/b.mp4")  # now a is the older one
    third = here(there.put("c.mp4", VIDEO))
    assert [copy.exists() for copy in [*copies, third]] == [False, True, True]
    fourth = here(there.put("d.mp4", VIDEO))
    assert copies[1].exists(), "used a moment ago"
    assert fourth.exists()
    with pytest.raises(InputError, match=r"50,000 bytes, more than the cache may hold: raise VIDSEG_CACHE_GB"):
        here(there.put("big.mp4", bytes(50_000)))
    monkeypatch.setenv("VIDSEG_CACHE_GB", "many")
    with pytest.raises(UsageError, match="VIDSEG_CACHE_GB=many: expected gigabytes"):
        here("s3://bucket/a.mp4")


@pytest.mark.parametrize("kind", ["busy", "slow"])
def test_uploads_are_tried_again_and_appear_whole(
    there: Bucket, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "slow":
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.4}})
    there.faults.append(Fault("PUT", "clip.mp4", kind, times=2))
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    Storage("s3://bucket").upload(tmp_path / "clip.mp4", "run/clip.mp4")
    assert there.get("run/clip.mp4") == VIDEO
    there.faults.append(Fault("PUT", "run.json", "forbidden", times=10**6))
    with pytest.raises(OutputError, match=r"^s3://bucket/run\.json: cannot be written: .*not now"):
        Storage("s3://bucket").put("run.json", b"{}")
    assert there.names() == {"run/clip.mp4"}


def test_names_below_a_url_and_what_is_removed(there: Bucket) -> None:
    for name in ("run/a", "run/b/c", "other/d", "run2/e"):
        there.put(name, b"1")
    storage = Storage("s3://bucket/run")
    assert storage.names() == {"a": 1, "b/c": 1}
    assert storage.folders() == ["b"]
    storage.delete(["a", "none"])
    assert storage.names() == {"b/c": 1}
    assert Storage("s3://bucket/none").folders() == []
    assert Storage("s3://bucket/*/[de]").matching() == ["s3://bucket/other/d", "s3://bucket/run2/e"]


def test_one_process_holds_a_lease_and_a_dead_one_loses_it(there: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage("s3://bucket/run")
    with StorageLease(storage, "run.lock") as lease:
        lease.check()
        with pytest.raises(UsageError, match=r"output folder s3://bucket/run is in use by another run"):
            StorageLease(storage, "run.lock").__enter__()
    assert there.names("run") == set()
    record = re.sub(rb'"pid": \d+', b'"pid": 1', lease._record)
    there.put("run/run.lock", record)  # of a process of this machine that has died
    with StorageLease(storage, "run.lock") as lease:
        there.put("run/run.lock", record.replace(b'"host": "', b'"host": "far-'))
        with pytest.raises(OutputError, match="another run has taken over"):
            lease.check()
    assert there.names("run") == {"run.lock"}, "it is not ours to remove"
    with pytest.raises(UsageError, match="in use"):
        StorageLease(storage, "run.lock").__enter__()
    monkeypatch.setattr(storage_lease, "STALE_S", -1.0)
    with StorageLease(storage, "run.lock"):
        assert there.names("run") == {"run.lock"}


def test_a_lease_is_renewed(there: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_lease, "_BEAT_S", 0.02)
    with StorageLease(Storage("s3://bucket"), "run.lock"):
        deadline = time.monotonic() + 120
        while [method for method, _ in there.requests].count("PUT") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [method for method, _ in there.requests].count("PUT") >= 3


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x", "az://bucket/x"])
def test_without_the_extra_one_line_names_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url[:2], raising=False)
    with pytest.raises(VidsegError, match=r"need the extra 'cloud': pip install 'vidseg\[cloud\]'$") as caught:
        here(url)
    assert caught.value.exit_code == 2


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder, as `python -m http.server` serves them: without ranges."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_of_a_web_server_are_copied_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "first.png").write_bytes(VIDEO)
    with served(tmp_path) as address:
        copy = here(f"{address}/first.png")
        assert copy.read_bytes() == VIDEO
        assert copy.is_relative_to(tmp_path / "cache/objects")
        with pytest.raises(InputError, match="no such object"):
            here(f"{address}/none.png")
