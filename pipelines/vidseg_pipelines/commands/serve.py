"""``vidseg serve``."""

from __future__ import annotations

import importlib.util
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from vidseg.errors import UsageError


@dataclass(frozen=True)
class ServeCommand:
    """Serve sessions over HTTP and WebSocket: masks for other programs and for labelling tools.

    Prints the address and, unless a file has it, the secret token that every request must send.

    Examples:
      vidseg serve --root videos/
      vidseg serve --root videos/ --state /var/lib/vidseg --port 8000 --token-file token.txt
    """

    root: Path
    """Folder below which videos may be opened by path."""
    state: Path = Path("runs/serve")
    """Folder for sessions and uploads; what a former server has left there is open again."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own lets others connect, without encryption."""
    port: int = 0
    """Port to listen on; 0: a free one."""
    token_file: Path | None = None
    """File with the secret token (default: a new one, which is printed)."""
    sessions: int = 64
    """Open sessions at most."""
    in_memory: int = 8
    """Sessions in memory at most; others rest on the disk."""
    idle: float = 300.0
    """Seconds after which a session that nobody calls leaves the memory."""
    tracker: str = "xmem"
    """Tracker: xmem, cutie, sam2 or another installed tracker that takes masks."""
    model: str = "compact"
    """Weights of HQ-SAM or SAM 2: a name from `vidseg weights list`, or a file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    compile: bool = False
    """Put the image encoder through torch.compile (see docs/performance.md)."""
    offline: bool = False
    """Never use the network: missing weights are an error."""

    def run(self) -> int:
        """Serve until Ctrl-C or SIGTERM; 0 then."""
        missing = [
            name
            for name in ("fastapi", "uvicorn", "websockets", "prometheus_client")
            if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise UsageError(f"vidseg serve needs {', '.join(missing)}: pip install 'vidseg[serve]'")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: expected 0 to 65535")
        for name, value in (("sessions", self.sessions), ("in-memory", self.in_memory), ("idle", self.idle)):
            if value <= 0:
                raise UsageError(f"--{name} {value}: a number over 0 expected")
        from vidseg_pipelines.build import ModelChoice
        from vidseg_pipelines.serve.app import build_app
        from vidseg_pipelines.serve.hub import Hub, Limits
        from vidseg_pipelines.web.serving import address, listen, serve_until_asked, warn_of

        token = self._token()
        warn_of(self.host)
        models = ModelChoice(
            tracker=self.tracker,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            compile=self.compile,
            offline=self.offline,
        )
        limits = Limits(sessions=self.sessions, in_memory=self.in_memory, idle_s=self.idle)
        hub = Hub(self.root, self.state, models.load, limits)
        hub.networks()  # what is missing is said now, not at the first request
        listening = listen(self.host, self.port)
        shown = "" if self.token_file is not None else f" token {token}"
        serve_until_asked(
            build_app(hub, token),
            listening,
            lambda: print(f"vidseg serve: {address(self.host, listening)}{shown}", flush=True),  # noqa: T201
        )
        sys.stdout.flush()
        return 0

    def _token(self) -> str:
        if self.token_file is None:
            return secrets.token_urlsafe(24)
        try:
            token = self.token_file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"--token-file {self.token_file}: cannot be read ({error})") from error
        if len(token) < 8 or not token.isascii() or any(c.isspace() for c in token):
            raise UsageError(f"--token-file {self.token_file}: one word of at least 8 ASCII characters expected")
        return token
