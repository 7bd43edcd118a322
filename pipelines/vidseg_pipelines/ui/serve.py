"""Runs the page until the process is asked to end."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from vidseg.config import RunConfig
from vidseg_pipelines.ui.desk import Desk
from vidseg_pipelines.ui.engine import PageEngine
from vidseg_pipelines.ui.library import Library
from vidseg_pipelines.ui.server import build_app
from vidseg_pipelines.web.serving import LOCAL, address, listen, serve_until_asked


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
    listening = listen(host, port)
    token = secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    url = f"{address(host, listening)}/?token={token}"
    hosts = {LOCAL, "localhost", "[::1]"} if host in (LOCAL, "localhost", "::1") else {shown, LOCAL, "localhost"}
    if host in ("0.0.0.0", "::"):
        hosts |= {socket.gethostname().lower(), *_addresses()}
    desk = Desk(library, engine, config)
    app = build_app(desk, token, hosts)

    def answers() -> None:
        ready(url)
        if browser:
            webbrowser.open(url)

    serve_until_asked(app, listening, answers)
    if desk.hung:
        sys.stdout.flush()
        os._exit(0)  # a thread still computes; what it had finished is in the run folder


def _addresses() -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()
