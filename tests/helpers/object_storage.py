"""An S3 server of this process (moto's), between which and its clients things can go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import s3fs
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Answer = Callable[..., Any]


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a ``method`` whose path contains ``part``."""

    method: str
    part: str
    kind: str
    """``busy`` (503), ``forbidden`` (403), ``slow``, ``cut`` (the connection ends early), ``short`` (and says so)."""
    times: int = 1


@dataclass
class Bucket:
    """A server with one bucket."""

    url: str = "s3://bucket"
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of all that were made."""
    slow_s: float = 1.0

    def put(self, name: str, data: bytes) -> str:
        _backend().put_object("bucket", name, data)
        return f"{self.url}/{name}"

    def get(self, name: str) -> bytes:
        return bytes(_backend().get_object("bucket", name).value)

    def names(self, folder: str = "") -> set[str]:
        start = f"{folder}/" if folder else ""
        return {name.removeprefix(start) for name in _backend().buckets["bucket"].keys if name.startswith(start)}

    def empty(self) -> None:
        """As at the beginning of a test."""
        for name in self.names():
            _backend().delete_object("bucket", name)
        self.faults.clear()
        self.requests.clear()

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = next((f for f in self.faults if f.times and f.method == method and f.part in path), None)
        if fault is None:
            return self._app(environ, start)
        fault.times -= 1
        if fault.kind == "slow":
            time.sleep(self.slow_s)
        if fault.kind in ("busy", "forbidden"):
            code, status = ("SlowDown", "503 x") if fault.kind == "busy" else ("AccessDenied", "403 x")
            start(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()]
        if fault.kind == "slow":
            return self._app(environ, start)
        kept: list[Any] = []
        data = b"".join(self._app(environ, lambda status, headers, exc=None: kept.extend((status, headers))))
        half = data[: len(data) // 2]
        size = len(data) if fault.kind == "cut" else len(half)
        start(kept[0], [(k, str(size) if k.lower() == "content-length" else v) for k, v in kept[1]])
        return [half]

    _app: Any = None


def _backend() -> Any:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


class _Silent(WSGIRequestHandler):
    def log(self, *args: Any) -> None: ...


@contextmanager
def bucket() -> Iterator[Bucket]:
    """An empty bucket, and an environment in which clients find it."""
    found = Bucket()
    found._app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, found, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # of a server that is gone
        if "bucket" not in _backend().buckets:
            _backend().create_bucket("bucket", "us-east-1")
        found.empty()
        yield found
        s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()
