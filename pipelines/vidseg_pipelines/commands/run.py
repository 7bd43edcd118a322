"""``vidseg run``."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar

from vidseg.config import RunConfig
from vidseg.names import printable
from vidseg.outputs.layout import OVERLAY
from vidseg.types import Source, VideoInfo
from vidseg.video import LiveSource
from vidseg.weights.catalog import CATALOG
from vidseg.weights.progress import DownloadBar
from vidseg_pipelines.progress import RunProgress
from vidseg_pipelines.run import Loaders, load_run_sam, run_video
from vidseg_pipelines.run_output import RunSummary
from vidseg_pipelines.streaming import Advance


@dataclass(frozen=True)
class RunCommand(RunConfig):  # noqa: D101
    __doc__ = RunConfig.__doc__

    CONFIG_IS_DEFAULTS: ClassVar[bool] = True

    def run(self) -> int:
        """Segment the video and say where the results are; 5 when something of the input came to nothing.

        A live input has no other end than Ctrl-C: the first one ends it in order, with code 0. Of a file, and the
        second time, it interrupts the run.
        """
        live: list[Source] = []

        def on_open(source: Source) -> None:
            if source.live:
                live.append(source)
            if isinstance(source, LiveSource):
                source.notice = lambda text: sys.stderr.write(f"{printable(text)}\n")

        def stop(number: int, frame: FrameType | None) -> None:
            if not live:
                raise KeyboardInterrupt
            live.pop().stop()
            sys.stderr.write("stopping; what was read is finished first (once more: at once)\n")

        # A job scheduler's SIGTERM closes the outputs as Ctrl-C does.
        previous = [(number, signal.signal(number, stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            with ExitStack() as stack:

                def on_start(info: VideoInfo, total: int | None) -> Advance:
                    if self.model in CATALOG and CATALOG[self.model].embedded:
                        sys.stderr.write(f"model: {self.model}, small and embedded; `vidseg weights list` has better\n")
                    return stack.enter_context(RunProgress(info.name, total, json_log=self.json_log)).advance

                loaders = Loaders(sam=lambda config: load_run_sam(config, DownloadBar(config.model)))
                summary = run_video(self, on_start=on_start, loaders=loaders, on_open=on_open)
        finally:
            for number, handler in previous:
                signal.signal(number, handler)
        _report(summary)
        return 5 if summary.status == "partial" else 0


def _report(summary: RunSummary) -> None:
    for kind, texts in (("note", summary.notes), ("warning", summary.warnings)):
        for text in texts:
            sys.stderr.write(f"{kind}: {printable(text)}\n")
    gap = summary.gap
    if gap.reconnects or gap.dropped:
        sys.stderr.write(
            f"gaps: {gap.seconds:.1f} s without connection, {gap.dropped} frames dropped to keep up (see the journal)\n"
        )
    ids = ", ".join(map(str, summary.objects))
    lines = [f"{summary.frames} frames, {len(summary.objects)} objects ({ids or 'none found'}), {summary.fps:.2f} fps"]
    overlay = [path for path in summary.outputs if path.name == OVERLAY]
    lines += [f"overlay: {path}" for path in overlay]
    lines.append(f"results: {summary.folder} ({', '.join(p.name for p in summary.outputs if p not in overlay)})")
    sys.stdout.write("\n".join(map(printable, lines)) + "\n")
