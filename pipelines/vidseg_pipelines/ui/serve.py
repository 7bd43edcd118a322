"""Runs the page until the process is asked to end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg_pipelines.ui.desk import Desk
from vidseg_pipelines.ui.engine import PageEngine
from vidseg_pipelines.ui.library import Library
from vidseg_pipelines.ui.server import build_app

LOCAL = "127.0.0.1"
_GRACE_S = 2


def serve(
    path: Path | None,
    output: Path,
    engine: PageEngine,
    config: RunConfig,
    *,
    host: str = LOCAL,
    port: int = 0,
    ready: Callable[[str], None],
    browser: bool = False,
) -> None:
    """Serve the page; ``ready(url)`` is called once it answers. SIGTERM and Ctrl-C save everything and end it.

    Raises:
        InputError: there is nothing at ``path``. UsageError: the port is taken.
    """
    library = Library(path, output)
    listening = _listen(host, port)
    token = secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/?token={token}"
    hosts = {LOCAL, "localhost", "[::1]"} if host in (LOCAL, "localhost", "::1") else {shown, LOCAL, "localhost"}
    if host in ("0.0.0.0", "::"):
        hosts |= {socket.gethostname().lower(), *_addresses()}
    desk = Desk(library, engine, config)
    app = build_app(desk, token, hosts)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(url)
            if browser:
                webbrowser.open(url)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Without raising them again at the end: to be asked to end is no error."""
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = [signal.signal(number, self.handle_exit) for number in numbers]
            try:
                yield
            finally:
                for number, handler in zip(numbers, before, strict=True):
                    signal.signal(number, handler)

    settings = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="websockets-sansio",
        ws_max_size=1 << 24,
        server_header=False,
    )
    Server(settings).run(sockets=[listening])
    if desk.hung:
        sys.stdout.flush()
        os._exit(0)  # a thread still computes; what it had finished is in the run folder


def warn_of(host: str) -> None:
    """Say what an address that others can reach means."""
    if host not in (LOCAL, "localhost", "::1"):
        sys.stderr.write(
            f"warning: --host {host} lets other machines connect, without encryption; who has the token can see and"
            " change everything here\n"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({error}); choose another --port"
        ) from error
    listening.listen(64)
    return listening


def _addresses() -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()
