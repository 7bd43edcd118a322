"""``vidseg run``."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vidseg.config import RunConfig
from vidseg.names import printable
from vidseg.outputs.layout import OVERLAY
from vidseg.weights.catalog import CATALOG
from vidseg_pipelines.settings import check_settings

if TYPE_CHECKING:
    from vidseg.sam.model import SegmentAnything
    from vidseg.types import Source, VideoInfo
    from vidseg_pipelines.run_output import RunSummary
    from vidseg_pipelines.streaming import Advance


@dataclass(frozen=True)
class RunCommand(RunConfig):  # noqa: D101
    __doc__ = RunConfig.__doc__

    CONFIG_IS_DEFAULTS: ClassVar[bool] = True

    def run(self) -> int:
        """Segment the video and print where the results are; 5 when part of the input was lost.

        A live input ends at Ctrl-C: the first one ends it cleanly, with code 0; the second one, and Ctrl-C while
        reading a file, interrupts the run.
        """
        check_settings(self)  # before PyTorch is loaded

        from vidseg_pipelines.progress import RunProgress
        from vidseg_pipelines.run import Loaders, run_video

        with _Signals() as signals, ExitStack() as stack:

            def on_start(info: VideoInfo, total: int | None) -> Advance:
                if self.model in CATALOG and CATALOG[self.model].embedded:
                    sys.stderr.write(f"model: {self.model}, small and embedded; `vidseg weights list` has better\n")
                return stack.enter_context(RunProgress(info.name, total, json_log=self.json_log)).advance

            loaders = Loaders(sam=_load_sam)
            summary = run_video(self, on_start=on_start, loaders=loaders, on_open=signals.watch)
        _report(summary)
        return 5 if summary.status == "partial" else 0


class _Signals:
    """Ctrl-C and a job scheduler's SIGTERM, which close the outputs: a live source ends, anything else is interrupted.

    The second one interrupts a live source too.
    """

    def __init__(self) -> None:
        self._live: Source | None = None
        self._before: list[tuple[int, Any]] = []

    def watch(self, source: Source) -> None:
        """Remember the run's open source, to stop it if it is live."""
        from vidseg.video import LiveSource

        if source.live:
            self._live = source
        if isinstance(source, LiveSource):
            source.notice = _notice

    def __enter__(self) -> Self:
        self._before = [(number, signal.signal(number, self._stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        source, self._live = self._live, None
        if source is None:
            raise KeyboardInterrupt
        source.stop()
        sys.stderr.write("stopping after the frames already read (Ctrl-C again: at once)\n")


def _notice(text: str) -> None:
    """Report what happens to a live source, from the thread that reads it."""
    sys.stderr.write(f"{printable(text)}\n")


def _load_sam(config: RunConfig) -> SegmentAnything:
    from vidseg.weights.progress import DownloadBar
    from vidseg_pipelines.run import load_run_sam

    return load_run_sam(config, DownloadBar(config.model))


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
