"""What a run writes into its folder: results while it goes on, exports and the manifest at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError, UsageError
from vidseg.masks.frame_masks import FrameMasks, Sink
from vidseg.outputs import WRITERS, DavisSink, ThumbnailSink, export, frame_sinks, open_recording, video_sinks
from vidseg.outputs.style import parse_style
from vidseg.types import Frame, Source, VideoInfo
from vidseg.video.random_access import RandomAccess
from vidseg_pipelines.backward import WayBack, first_masks, follow_backward
from vidseg_pipelines.continuation import Start
from vidseg_pipelines.made_of import MadeOf
from vidseg_pipelines.manifest import moves_of, take_back
from vidseg_pipelines.run_folder import FINISHED, RunFolder
from vidseg_pipelines.run_inputs import input_here
from vidseg_pipelines.run_sinks import CountingSink, NewResults, bounded
from vidseg_pipelines.run_summary import RunSummary
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.snapshot import Snapshots, UnusableSnapshotError
from vidseg_pipelines.streaming import Advance, OutOfTime, stream
from vidseg_pipelines.unused import UnusedPrompts

Started = Callable[[VideoInfo, int | None], Advance]


@dataclass(frozen=True)
class Run:
    """A run whose models are loaded: what it reads, what it computes with, where it writes, where it begins."""

    config: RunConfig
    source: Source
    segmenter: Segmenter
    folder: RunFolder
    manifest: dict[str, Any]
    made_of: MadeOf
    unused: UnusedPrompts
    start: Start
    back: WayBack | None = None
    """What it follows towards the beginning; None: it goes forward only."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, besides what the source and the segmenter say."""

    @property
    def resuming(self) -> bool:
        """It goes on with what is in the folder."""
        return self.start.earlier is not None

    @property
    def next_frame(self) -> int:
        """The first frame to compute."""
        return self.start.next_frame

    @property
    def frames_to_do(self) -> int | None:
        """How many frames are still to do, when the container knows its length."""
        end, count = self.config.frame_range[1], self.source.info.frame_count
        last = end if count is None else min(count, end or count)
        if self.back is not None and self.back.last is not None:
            last = min(self.back.last + 1, last or self.back.last + 1)
        steps_back = 0 if self.back is None else self.back.steps
        return None if last is None or steps_back is None else max(0, last - self.next_frame) + steps_back

    @property
    def is_merged(self) -> bool:
        """The journal holds already what is followed backward: the run had ended, and nothing is computed."""
        earlier = self.start.earlier
        return earlier is not None and earlier["status"] in FINISHED and self.start.corrected is None

    @property
    def losses(self) -> list[str]:
        """What of the input came to nothing."""
        return [*self.source.warnings, *self.segmenter.warnings]


def write_run(run: Run, on_start: Started | None = None) -> RunSummary:
    """Segment the video into its folder. Nothing changes there before the first frame has been read.

    Raises:
        UsageError: the snapshot cannot be used. InputError: the source has no frame. OutputError: a result cannot be
            written.
    """
    begun = time.perf_counter()
    frames = _begin_reading(run)
    with _recorded(run, begun) as outputs:
        advance = on_start(run.source.info, run.frames_to_do) if on_start else _advance_silently
        snapshots = Snapshots(
            run.folder.snapshot,
            run.folder.states,
            run.made_of,
            every=run.config.snapshot_every,
            keep_every=run.config.keep_states,
            next_frame=run.next_frame,
        )
        with outputs.opened(run):
            stream(
                _frames_to_do(run, frames, outputs.replayed),
                run.segmenter,
                [NewResults(outputs.sinks, run.start.keep)],
                batch=run.config.batch,
                advance=advance,
                snapshots=snapshots,
                cancel=run.source.stop,
                live=run.source.live,
                first_alone=run.start.snapshot is None,  # after one: the micro-batches of the run that took it
            )
        if run.back is not None:
            _go_back(run, run.back, outputs, snapshots, advance)
    run.folder.remove_snapshot()
    return RunSummary.of(run.manifest, run.folder)


def _begin_reading(run: Run) -> Iterator[Frame]:
    """The frames of the source; refuses a source without any."""
    run.segmenter.start(replace(run.source.info, end=run.config.frame_range[1]))
    snapshot = run.start.snapshot
    if snapshot is not None:
        try:
            run.segmenter.load_state_dict(snapshot.state, run.next_frame)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UnusableSnapshotError(snapshot.path or run.folder.snapshot) from error
    frames = iter(run.source)
    first = next(frames, None)
    if first is None:
        reasons = "; ".join(bounded(run.source.warnings)[:3])
        raise InputError(f"{run.source.info.name}: not one frame could be read{': ' if reasons else ''}{reasons}")
    return chain([first], frames)


def _frames_to_do(run: Run, frames: Iterable[Frame], replayed: Sequence[Sink]) -> Iterator[Frame]:
    """Frames that are still to do; those that the journal holds also pass by the ``replayed`` sinks."""
    done = run.folder.results() if run.start.keep > run.config.frame_range[0] else iter(())
    for frame in run.unused.watch(frames):
        if frame.index < run.start.keep:
            masks = next(done, None)
            if masks is None or masks.frame_index != frame.index:
                raise run.folder.lacking(frame.index)
            for sink in replayed:
                sink.write(frame, masks)
        if frame.index >= run.next_frame:
            yield frame
        if run.back is not None and frame.index == run.back.last:
            return


def _go_back(run: Run, way: WayBack, outputs: _RunOutputs, snapshots: Snapshots, advance: Advance) -> None:
    """Follow objects towards the beginning, then make the outputs of the whole journal."""
    starts, last, notes = first_masks(run.folder, way)
    run.notes.extend(notes)
    reader = RandomAccess(input_here(run.config), pixel_limit=run.config.max_pixels, cache_bytes=0)
    with contextlib.closing(reader) as video:
        if last is not None:
            video.check(last.frame_index, last.pts)  # of a damaged video the packets promise more
        if not run.is_merged:
            end = way.first if last is None else last.frame_index + 1
            if (snapshot := snapshots.take(run.segmenter, end, now=True)) is not None:
                snapshots.save(snapshot)  # whoever resumes has nothing to compute forward
            follow_backward(run.folder, video, run.segmenter, run.source.info, way, starts, advance)
        with outputs.drawn(run) as sinks, run.segmenter.clock("write"):
            for masks in run.folder.results() if sinks else ():
                frame = video.read(masks.frame_index)
                for sink in sinks:
                    sink.write(frame, masks)


def _advance_silently(results: Sequence[FrameMasks]) -> None:
    """No progress is shown."""


class _RunOutputs:
    """The sinks of a run, and what is exported when they are closed."""

    def __init__(self) -> None:
        self.counts = CountingSink()
        self.pictures = ThumbnailSink()
        self.sinks: list[Sink] = []
        self.replayed: list[Sink] = []
        """Sinks that see all frames again in a run that goes on: they cannot be appended to, or are made anew."""
        self.losses: list[str] = []
        """What the outputs could not hold."""

    @contextlib.contextmanager
    def opened(self, run: Run) -> Iterator[None]:
        """Open the sinks; they are closed at the end. A run that goes back opens the others when it has: ``drawn``."""
        self.replayed.append(self.counts)
        by_frame: list[Sink] = []
        davis: DavisSink | None = None
        if run.back is None:
            whole, by_frame, davis = self._drawing(run)
            self.replayed += whole
        # The journal is last: a frame in it was given to all other outputs.
        journal = run.folder.open_journal(
            resuming=run.resuming, next_frame=run.start.keep, names=run.config.names if run.start.redraw else {}
        )
        self.sinks += [*self.replayed, *by_frame, journal]
        self.replayed += by_frame if run.start.redraw else []
        with self._closing(self.sinks, davis):
            yield

    @contextlib.contextmanager
    def drawn(self, run: Run) -> Iterator[Sequence[Sink]]:
        """The sinks besides the journal, open; they are closed at the end."""
        whole, by_frame, davis = self._drawing(run)
        with self._closing([*whole, *by_frame], davis):
            yield [*whole, *by_frame]

    def _drawing(self, run: Run) -> tuple[list[Sink], list[Sink], DavisSink | None]:
        """Sinks of the whole video and those of single frames, among them that of label maps."""
        saves, given = run.config.saves, input_here(run.config)
        style = parse_style(run.config.overlay_style)
        whole: list[Sink] = [*video_sinks(run.folder.path, saves, run.source.info, style, given)]
        whole += [self.pictures] if "report" in saves else []
        davis = DavisSink(run.folder.davis) if "davis" in saves else None
        pictures = frame_sinks(run.folder.path, saves, run.source.info, given if given.is_dir() else given.parent)
        return whole, [*([] if davis is None else [davis]), *pictures], davis

    @contextlib.contextmanager
    def _closing(self, sinks: Sequence[Sink], davis: DavisSink | None) -> Iterator[None]:
        try:
            with contextlib.ExitStack() as stack:
                for sink in sinks:
                    stack.callback(sink.close)
                yield
        finally:
            self.losses += [] if davis is None else davis.warnings

    def export(self, run: Run) -> None:
        """Make the files that are written in one piece."""
        with run.segmenter.clock("export"):
            names = [name for name in run.config.saves if name in WRITERS and name != "davis"]
            if names:
                warnings = bounded([*run.segmenter.doubts, *run.losses, *self.losses, *run.unused.warnings()])
                recording = replace(
                    open_recording(run.folder.journal), pictures=self.pictures.pictures, warnings=warnings
                )
                self.losses += export(recording, run.folder.path, names)


@contextlib.contextmanager
def _recorded(run: Run, begun: float) -> Iterator[_RunOutputs]:
    """The sinks of a run, to be opened. Exports and manifest are written however the block ends."""
    outputs, status, losses = _RunOutputs(), "failed", list[str]()
    counts = outputs.counts
    try:
        if run.resuming:
            run.folder.clear_unfinished()
        else:
            run.folder.clear()
        _describe(run, counts, "running")  # before any other file: without it a killed run could not be resumed
        if run.start.corrected is not None:
            run.folder.remove_states(after=run.start.corrected)
        yield outputs
        outputs.export(run)
        losses = [*run.losses, *outputs.losses, *run.unused.warnings()]
        status = "partial" if losses else "done"
    except UsageError:
        take_back(run.manifest, run.start.earlier, run.start.corrected)
        raise
    except KeyboardInterrupt as interrupt:
        status = "interrupted"
        if counts.frames and not isinstance(interrupt, OutOfTime):
            outputs.export(run)
        raise
    finally:
        with contextlib.suppress(OutputError) if status == "failed" else contextlib.nullcontext():
            if counts.frames or run.resuming or status in FINISHED:
                seconds = time.perf_counter() - begun
                _describe(run, counts, status, seconds, losses or [*run.losses, *outputs.losses])
            else:
                run.folder.clear()  # nothing to go on from


def _describe(run: Run, counts: CountingSink, status: str, seconds: float = 0.0, losses: Sequence[str] = ()) -> None:
    """Bring the manifest to what is known now."""
    segmenter = run.segmenter
    stages = segmenter.clock.seconds()
    working = seconds - stages.get("compile", 0.0)
    doubts = [*run.start.warnings, *(segmenter.doubts if status != "running" else ())]
    if status in FINISHED:
        run.manifest.pop("recompute_from", None)
        unseen = {i: name for i, name in run.config.names.items() if i not in counts.objects}
        doubts += [f"--label {i}={name}: the run has no object {i}" for i, name in unseen.items()]
    run.manifest.update(
        status=status,
        frames=counts.frames,
        objects=sorted(counts.objects),
        wall_seconds=round(seconds, 3),
        fps=round(counts.frames / working, 3) if working > 0 else 0.0,
        seconds=stages,
        warnings=bounded([*moves_of(run.manifest), *doubts, *losses]),
        notes=bounded([*run.source.notes, *segmenter.notes, *run.notes]),
    )
    if run.source.live:
        run.manifest["gap"] = asdict(counts.gap)
    run.folder.write_manifest(run.manifest)
