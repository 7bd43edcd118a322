"""``vidseg ui``."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vidseg.config import Dtype, RunConfig
from vidseg.errors import UsageError


@dataclass(frozen=True)
class UiCommand:
    """Open videos in the browser: click on objects, see their masks, run, correct, export.

    Prints the address of the page, which only this machine can open and which holds a secret token.

    Examples:
      vidseg ui video.mp4
      vidseg ui videos/ --output runs
      vidseg ui runs/dog            # a run made by vidseg run
      vidseg ui                     # the page offers to upload a video
    """

    path: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = None
    """A video, a folder of videos or of frames, or the output folder of a run (default: upload on the page)."""
    output: Path = Path("runs")
    """Folder for results, one folder below it per video; or the output folder of one run."""
    port: int = 0
    """Port to listen on; 0: a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own lets others connect, without encryption."""
    no_browser: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only print the address."""
    tracker: str = "xmem"
    """Tracker: xmem, cutie, sam2 or another installed tracker that takes masks."""
    model: str = "compact"
    """Weights of HQ-SAM or SAM 2: a name from `vidseg weights list`, or a file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Dtype = "auto"
    """auto, float32, bfloat16 or float16."""
    compile: bool = False
    """Put the image encoder through torch.compile (see docs/performance.md)."""
    offline: bool = False
    """Never use the network: missing weights are an error."""

    def run(self) -> int:
        """Serve until Ctrl-C or SIGTERM; 0 then."""
        missing = [name for name in ("starlette", "uvicorn", "websockets") if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"vidseg ui needs {', '.join(missing)}: pip install 'vidseg[ui]'")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: expected 0 to 65535")
        from vidseg_pipelines.run import models_of
        from vidseg_pipelines.ui.engine import PageEngine
        from vidseg_pipelines.ui.serve import serve
        from vidseg_pipelines.web.serving import warn_of

        config = RunConfig(
            tracker=self.tracker,
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            compile=self.compile,
            offline=self.offline,
            save="none",
        )
        models = models_of(config)
        models.check()
        warn_of(self.host)
        has_screen = sys.platform in ("darwin", "win32") or bool(
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        )
        serve(
            self.path,
            self.output,
            PageEngine(models.load),
            config,
            host=self.host,
            port=self.port,
            ready=lambda url: print(f"vidseg ui: {url}", flush=True),  # noqa: T201
            browser=has_screen and not self.no_browser,
        )
        return 0
