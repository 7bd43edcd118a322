"""A web application on a port of this machine, until the process is asked to end."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from vidseg.errors import UsageError

LOCAL = "127.0.0.1"
_GRACE_S = 2


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one.

    Raises:
        UsageError: the port is taken, or the address is not one of this machine.
    """
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


def address(host: str, listening: socket.socket) -> str:
    """``http://HOST:PORT`` of a socket that listens."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def serve_until_asked(app: Any, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application; ``ready`` is called once it answers. SIGTERM and Ctrl-C end it in order."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

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
        ws_ping_timeout=120.0,  # a busy machine answers late
        server_header=False,
    )
    Server(settings).run(sockets=[listening])


def warn_of(host: str) -> None:
    """Say what an address that others can reach means."""
    if host not in (LOCAL, "localhost", "::1"):
        sys.stderr.write(
            f"warning: --host {host} lets other machines connect, without encryption; who has the token can see and"
            " change everything here\n"
        )
