"""``vidseg run``."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar

from vidseg.config import RunConfig
from vidseg.types import VideoInfo
from vidseg.weights.catalog import CATALOG
from vidseg.weights.progress import DownloadBar
from vidseg_pipelines.progress import RunProgress
from vidseg_pipelines.run import OVERLAY, Loaders, RunSummary, load_run_sam, run_video
from vidseg_pipelines.streaming import Advance


@dataclass(frozen=True)
class RunCommand(RunConfig):  # noqa: D101
    __doc__ = RunConfig.__doc__

    CONFIG_IS_DEFAULTS: ClassVar[bool] = True

    def run(self) -> int:
        """Segment the video and say where the results are; 5 when the input was damaged."""

        def stop(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGTERM, stop)  # a job scheduler's stop closes the outputs as Ctrl-C does
        try:
            with ExitStack() as stack:

                def started(info: VideoInfo, total: int | None) -> Advance:
                    if self.model in CATALOG and CATALOG[self.model].embedded:
                        sys.stderr.write(f"model: {self.model}, small and embedded; `vidseg weights list` has better\n")
                    return stack.enter_context(RunProgress(info.name, total, json_log=self.json_log)).advance

                loaders = Loaders(sam=lambda config: load_run_sam(config, DownloadBar(config.model)))
                summary = run_video(self, started=started, loaders=loaders)
        finally:
            signal.signal(signal.SIGTERM, previous)
        _report(summary)
        return 5 if summary.warnings else 0


def _report(summary: RunSummary) -> None:
    for warning in summary.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    ids = ", ".join(map(str, summary.objects))
    lines = [f"{summary.frames} frames, {len(summary.objects)} objects ({ids or 'none found'}), {summary.fps:.2f} fps"]
    overlay = [path for path in summary.outputs if path.name == OVERLAY]
    lines += [f"overlay: {path}" for path in overlay]
    lines.append(f"results: {summary.folder} ({', '.join(p.name for p in summary.outputs if p not in overlay)})")
    sys.stdout.write("\n".join(lines) + "\n")
