"""``vidseg run``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vidseg.config import NOT_RESULT, RunConfig, from_mapping
from vidseg.errors import UsageError, VidsegError
from vidseg.heap import without_collection
from vidseg.names import printable
from vidseg.outputs.layout import MANIFEST, OVERLAY
from vidseg.text import read_json
from vidseg.weights.catalog import CATALOG
from vidseg_pipelines.settings import check_settings

if TYPE_CHECKING:
    from vidseg.sam.model import SegmentAnything
    from vidseg.types import Source, VideoInfo
    from vidseg_pipelines.run_summary import RunSummary
    from vidseg_pipelines.streaming import Advance


@dataclass(frozen=True)
class RunCommand(RunConfig):  # noqa: D101
    __doc__ = RunConfig.__doc__

    CONFIG_IS_DEFAULTS: ClassVar[bool] = True

    quiet: bool = field(default=False, metadata=NOT_RESULT)
    """Print only warnings and errors."""
    verbose: bool = field(default=False, metadata=NOT_RESULT)
    """Also print the device, the weights and how long each stage took."""
    json: bool = field(default=False, metadata=NOT_RESULT)
    """Print the result as one JSON object on standard output, also if the run fails."""

    @classmethod
    def defaults_for(cls, given: RunCommand) -> RunCommand | None:
        """The settings of the run that goes on with what the flags say; None: it is a new run.

        Raises:
            UsageError: there is no run to go on with.
        """
        if not (given.continue_ or (given.resume and not given.input)):
            return None
        from vidseg_pipelines.continuation import settings_with
        from vidseg_pipelines.run import folder_of

        folder = folder_of(given.input, given.output)
        settings = settings_with(folder, {"input": given.input, "continue_": given.continue_})
        return from_mapping(cls, {**settings, "continue_": False}, where=str(folder))  # the flag sets it

    def run(self) -> int:
        """Segment the video and print where the results are; 5 when part of the input was lost.

        A live input ends at Ctrl-C: the first one ends it cleanly, with code 0; the second one, and Ctrl-C while
        reading a file, interrupts the run.
        """
        try:
            if self.quiet and self.verbose:
                raise UsageError("--quiet and --verbose cannot be combined")
            check_settings(self)  # before PyTorch is loaded
            summary = self._segment()
        except (VidsegError, KeyboardInterrupt) as error:
            if self.json:
                interrupted = isinstance(error, KeyboardInterrupt)
                code = 130 if interrupted else error.exit_code if isinstance(error, VidsegError) else 1
                failed = {"status": "interrupted" if interrupted else "failed", "error": str(error), "exit_code": code}
                sys.stdout.write(json.dumps(failed) + "\n")
            raise
        _report(self, summary)
        return 5 if summary.status == "partial" else 0

    def _segment(self) -> RunSummary:
        with without_collection():
            from vidseg_pipelines.progress import RunProgress, write_event
            from vidseg_pipelines.run import Loaders, run_video

        with _Signals(self.say) as signals, ExitStack() as stack:

            def on_start(info: VideoInfo, total: int | None) -> Advance:
                if self.model in CATALOG and CATALOG[self.model].embedded and not (self.quiet or self.json_log):
                    self.say(f"model: {self.model}, small and embedded; `vidseg weights list` has better")
                if self.json_log:
                    write_event("start", input=info.name, frames=total, width=info.width, height=info.height)
                progress = RunProgress(info.name, total, json_log=self.json_log, quiet=self.quiet)
                return stack.enter_context(progress).take

            return run_video(self, on_start=on_start, loaders=Loaders(sam=_load_sam), on_open=signals.watch)

    def say(self, text: str, kind: str = "notice") -> None:
        """Tell the user something on standard error, as text or as an event."""
        if self.json_log:
            from vidseg_pipelines.progress import write_event

            write_event(kind, text=text)
        else:
            sys.stderr.write(printable(text if kind == "notice" else f"{kind}: {text}") + "\n")


class _Signals:
    """Ctrl-C and a job scheduler's SIGTERM, which close the outputs: a live source ends, anything else is interrupted.

    The second one interrupts a live source too.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._live: Source | None = None
        self._before: list[tuple[int, Any]] = []

    def watch(self, source: Source) -> None:
        """Remember the run's open source, to stop it if it is live."""
        if source.live:
            from vidseg.video import LiveSource  # decodes with PyAV, as all that is live does

            self._live = source
            if isinstance(source, LiveSource):
                source.notice = self._say  # from the thread that reads it

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
        self._say("stopping after the frames already read (Ctrl-C again: at once)")


def _load_sam(config: RunConfig) -> SegmentAnything:
    from vidseg.weights.progress import DownloadBar
    from vidseg_pipelines.run import load_run_sam

    silent = config.json_log or (isinstance(config, RunCommand) and config.quiet)
    return load_run_sam(config, None if silent else DownloadBar(config.model))


def _report(command: RunCommand, summary: RunSummary) -> None:
    """Say what the run gave."""
    result = _result(summary)
    for kind, texts in (("note", () if command.quiet else summary.notes), ("warning", summary.warnings)):
        for text in texts:
            command.say(text, kind)
    gap = summary.gap
    if (gap.reconnects or gap.dropped) and not command.quiet:
        lost = f"{gap.seconds:.1f} s without connection, {gap.dropped} frames dropped to keep up (see the journal)"
        command.say(f"gaps: {lost}")
    if command.json_log:
        from vidseg_pipelines.progress import write_event

        write_event("done", **{name: result[name] for name in ("status", "folder", "frames", "objects", "fps")})
    if command.json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif not command.quiet:
        sys.stdout.write("\n".join(map(printable, _lines(command, summary))) + "\n")


def _result(summary: RunSummary) -> dict[str, Any]:
    """A summary as JSON types."""
    return {
        **asdict(summary),
        "folder": str(summary.folder),
        "objects": list(summary.objects),
        "outputs": [str(path) for path in summary.outputs],
    }


def _lines(command: RunCommand, summary: RunSummary) -> list[str]:
    ids, count = ", ".join(map(str, summary.objects)), len(summary.objects)
    objects = f"{count} object{'s' * (count != 1)} ({ids or 'none found'})"
    lines = [f"{summary.frames} frame{'s' * (summary.frames != 1)}, {objects}, {summary.fps:.2f} fps"]
    if command.verbose:
        manifest = read_json(summary.folder / MANIFEST)
        used, seconds = manifest["used"], manifest["seconds"]
        precision = f"{used['dtype']} ({used['dtype_reason']})"
        lines.append(f"computed on {used['device']} in {precision} with {used['threads']} threads")
        lines += [f"weights of the {part}: {file['name']}" for part, file in manifest["weights"].items()]
        lines.append("seconds: " + ", ".join(f"{stage} {time:.2f}" for stage, time in seconds.items()))
    overlay = [path for path in summary.outputs if path.name == OVERLAY]
    lines += [f"overlay: {path}" for path in overlay]
    return [*lines, f"results: {summary.folder} ({', '.join(p.name for p in summary.outputs if p not in overlay)})"]
