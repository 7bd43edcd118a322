"""Fetching from a local server that truncates, corrupts, redirects, stalls and refuses to resume."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vidseg.errors import UsageError, WeightsError
from vidseg.weights import weights_identity
from vidseg.weights.catalog import CATALOG, Entry, find_entry, find_local
from vidseg.weights.fetch import fetch, locate, mismatch

CONTENT = bytes(range(256)) * 1200


class Handler(BaseHTTPRequestHandler):
    """The path chooses the behaviour; ``server.ranges`` logs what was asked for."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        ranges, path = self.headers.get("Range"), self.path
        self.server.ranges.append(ranges)
        start = int(ranges.removeprefix("bytes=").removesuffix("-")) if ranges else 0
        first = len(self.server.ranges) == 1
        if path == "/missing":
            return self.send_error(404)
        if path == "/busy" and first:
            return self.send_error(503)
        if path in ("/redirect", "/to-file", "/loop"):
            self.send_response(302)
            self.send_header("Location", {"/redirect": "/good", "/loop": "/loop"}.get(path, "file:///etc/hostname"))
            return self.end_headers()
        if path == "/no-ranges":
            start = 0
        body = CONTENT if path != "/corrupt" else CONTENT[:5000] + b"!" + CONTENT[5001:]
        if start >= len(body):
            return self.send_error(416)
        part = body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(part) + (10 if path == "/long" else 0)))
        self.end_headers()
        if path == "/truncate" and len(self.server.ranges) < 3:
            self.wfile.write(part[: len(part) // 2])
        elif path == "/always-truncate":
            self.wfile.write(part[:100])
        elif path == "/stall" and first:
            self.wfile.write(part[:1000])
            self.wfile.flush()
            self.server.released.wait(120)
        else:
            self.wfile.write(part)
        return None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.released = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def entry(server: Server, path: str) -> Entry:
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Entry("toy", "Toy", "sam", "toy.bin", "MIT", "", url, len(CONTENT), digest)


def get(server: Server, path: str, folder: Path, attempts: int = 4, **changes: object) -> Path:
    timeout_s = 0.3 if path == "stall" else 60.0  # a busy machine is no stall
    return fetch(replace(entry(server, path), **changes), folder, timeout_s=timeout_s, attempts=attempts, pause_s=0.001)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"toy.bin.lock"}


@pytest.mark.parametrize("path", ["good", "redirect", "busy", "no-ranges"])
def test_a_good_file_arrives(server: Server, tmp_path: Path, path: str) -> None:
    seen: list[tuple[int, int | None]] = []
    done = fetch(entry(server, path), tmp_path / "new", progress=lambda *n: seen.append(n), pause_s=0.001)
    assert done.read_bytes() == CONTENT
    assert names(tmp_path / "new") == {"toy.bin"}
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_truncated_answers_are_resumed(server: Server, tmp_path: Path) -> None:
    assert get(server, "truncate", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_stalled_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    assert get(server, "stall", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    "trouble",
    [ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]"), OSError(errno.EHOSTUNREACH, "No route to host")],
)
def test_any_error_of_the_connection_is_retried(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: OSError
) -> None:
    read, calls = http.client.HTTPResponse.read1, iter(range(99))

    def read1(answer: http.client.HTTPResponse, n: int = -1) -> bytes:
        if next(calls) == 1:
            raise trouble
        return read(answer, 1000)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read1)
    with pytest.raises(WeightsError, match=f"{re.escape(str(trouble))} .1 attempts, 1,000 bytes kept for the next"):
        get(server, "good", tmp_path, attempts=1)
    monkeypatch.setattr(http.client.HTTPResponse, "read1", read)
    assert get(server, "good", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_errors_of_the_disk_are_no_errors_of_the_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(WeightsError, match=r"cannot write weights to .*: No space left"):
        get(server, "good", tmp_path)


def test_stall_without_end_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no data for 0.3 s \(1 attempts, 1,000 bytes kept"):
        get(server, "stall", tmp_path, attempts=1)
    assert names(tmp_path) == {"toy.bin.part"}


def test_part_of_an_earlier_run_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.bin.part").write_bytes(CONTENT[:777])
    assert get(server, "good", tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=777-"]


@pytest.mark.parametrize("length", [777, len(CONTENT), len(CONTENT) + 5])
def test_wrong_part_is_thrown_away(server: Server, tmp_path: Path, length: int) -> None:
    (tmp_path / "toy.bin.part").write_bytes(b"z" * length)
    assert get(server, "good", tmp_path).read_bytes() == CONTENT


def test_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy.bin.part").write_bytes(CONTENT[:777])
    assert get(server, "no-ranges", tmp_path).read_bytes() == CONTENT


def test_corrupt_file_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"sha256 \w+ instead of"):
        get(server, "corrupt", tmp_path)
    assert names(tmp_path) == set()


def test_md5_prefix_is_checked(server: Server, tmp_path: Path) -> None:
    prefix = hashlib.md5(CONTENT).hexdigest()[:6]
    assert get(server, "good", tmp_path / "a", sha256=None, size=None, md5_prefix=prefix).is_file()
    with pytest.raises(WeightsError, match="does not start with"):
        get(server, "corrupt", tmp_path / "b", sha256=None, size=None, md5_prefix=prefix)


def test_refusals(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="answers 404"):
        get(server, "missing", tmp_path)
    with pytest.raises(WeightsError, match="Redirection to url 'file:///etc/hostname' is not allowed"):
        get(server, "to-file", tmp_path)
    with pytest.raises(WeightsError, match="/loop"):
        get(server, "loop", tmp_path)
    with pytest.raises(WeightsError, match=r"offers .* bytes instead of"):
        get(server, "long", tmp_path)
    with pytest.raises(WeightsError, match=r"ended early|IncompleteRead"):
        get(server, "always-truncate", tmp_path, attempts=2)
    assert not (tmp_path / "toy.bin").exists()


def test_nobody_listens(tmp_path: Path) -> None:
    server = Server()
    server.server_close()
    with pytest.raises(WeightsError, match="refused"):
        get(server, "good", tmp_path, attempts=1)


def test_two_processes_want_one_file(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=get, args=(server, "good", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot write weights"):
        get(server, "good", tmp_path / "file")


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"--offline.*vidseg weights fetch sam-hq-vit-l.*sam_hq_vit_l.pth") as caught:
        locate("sam-hq-vit-l", offline=True)
    assert caught.value.exit_code == 4
    (tmp_path / "XMem.pth").write_bytes(b"x")
    assert locate("xmem", offline=True) == tmp_path / "XMem.pth"
    assert weights_identity("xmem")["sha256"] == hashlib.sha256(b"x").hexdigest()
    (tmp_path / "sam_hq_vit_l.pth").write_bytes(b"of the wrong size")
    assert find_local("sam-hq-vit-l") is None


def test_catalogue() -> None:
    assert {"compact", "compact-xmem"} == {name for name, e in CATALOG.items() if e.embedded}
    for name, e in CATALOG.items():
        assert e.name == name and e.licence and e.paper and e.title
        assert e.sha256 is None or len(e.sha256) == 64
        assert e.embedded or (e.url or "").startswith("https://")
        assert e.non_commercial == name.startswith("mask2former")
    assert len({e.file for e in CATALOG.values()}) == len(CATALOG)
    with pytest.raises(UsageError, match="did you mean 'mobile-sam'"):
        find_entry("mobilesam")


def test_mismatch_of_size(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123")
    assert "3 bytes instead of 42,526,881" in mismatch(tmp_path / "x", CATALOG["sam-hq-vit-tiny"])
