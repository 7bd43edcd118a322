"""One video, from its configuration to its output folder: what ``vidseg run`` and ``segment_video`` do."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseg.config import RunConfig
from vidseg.errors import OutputError, PartialError, UsageError
from vidseg.names import safe_name
from vidseg.outputs import (
    EXPORTERS,
    DavisSink,
    JournalSink,
    OverlaySink,
    ThumbnailSink,
    read_journal,
    truncate_journal,
    write_report,
)
from vidseg.outputs.files import make_folder
from vidseg.prompts import parse_prompts
from vidseg.registry import build_detector, build_tracker, check_name
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.build import load_sam
from vidseg.sam.model import Sam
from vidseg.sam.refiner import RefineOptions, Refiner
from vidseg.types import Detector, Frame, FrameMasks, Gap, Sink, Source, Tracker, VideoInfo
from vidseg.video import Backoff, open_source
from vidseg_pipelines import resume
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.run_folder import (
    JOURNAL,
    OUTPUTS,
    OVERLAY,
    check_folder,
    discard_folder,
    new_manifest,
    weights_of,
)
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.streaming import Advance, stream

Started = Callable[[VideoInfo, int | None], Advance]


def load_run_sam(config: RunConfig, progress: Callable[[int, int | None], None] | None = None) -> Sam:
    """The HQ-SAM of a run; ``progress`` is told of a download."""
    return load_sam(config.model, progress=progress, **_place(config))


def _load_tracker(config: RunConfig) -> Tracker:
    return build_tracker(config.tracker, config.all_tracker_options(), **_place(config))


def _load_detector(config: RunConfig) -> Detector | None:
    return build_detector(config.detect_with, config.detector_options, **_place(config)) if config.detect_with else None


def _place(config: RunConfig) -> dict[str, Any]:
    device = resolve_device(config.device)
    return {"device": device, "dtype": resolve_dtype(config.dtype, device), "offline": config.offline}


@dataclass(frozen=True)
class Loaders:
    """Where a run gets its models from; a worker that does many videos gives loaders that remember."""

    sam: Callable[[RunConfig], Sam] = load_run_sam
    tracker: Callable[[RunConfig], Tracker] = _load_tracker
    detector: Callable[[RunConfig], Detector | None] = _load_detector


@dataclass(frozen=True)
class RunSummary:
    """What a run gave. ``status`` is "done" or "partial" (see ``warnings``); ``notes`` name no fault."""

    folder: Path
    status: str
    frames: int
    objects: tuple[int, ...]
    fps: float
    warnings: tuple[str, ...]
    outputs: tuple[Path, ...]
    gap: Gap
    """All that a live source lost, added up."""
    notes: tuple[str, ...] = ()


@dataclass
class _Tally:
    """A sink that counts."""

    frames: int = 0
    objects: frozenset[int] = frozenset()
    gap: Gap = field(default_factory=Gap)

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        self.frames += 1
        self.gap += masks.gap
        self.objects |= frozenset(masks.ids)

    def close(self) -> None:
        pass


def run_video(
    config: RunConfig,
    *,
    started: Started | None = None,
    loaders: Loaders | None = None,
    opened: Callable[[Source], None] = lambda source: None,
) -> RunSummary:
    """Segment one video into its output folder.

    ``started(info, total_frames)`` is called once before the first frame and returns the function that is told of
    progress: ``advance(frames, objects)``. ``loaders`` give the models (default: load what ``config`` names); they are
    asked only when there is something to do. ``opened(source)`` is called when the input is open; ``source.stop()``
    then ends the run early and in order: what was read is segmented and written.

    Raises:
        UsageError: wrong settings or prompts; the output folder exists and neither resume nor overwrite is set.
        InputError: the video cannot be read.
        WeightsError: weights are missing or wrong.
        OutputError: a result cannot be written. What was written before stays valid.
    """
    if not config.input:
        raise UsageError("which video? vidseg run VIDEO (a file, a folder of images, a camera, a stream, or -)")
    config.check()
    check_name("tracker", config.tracker)
    if config.detect_with:
        check_name("detector", config.detect_with)
    first, end = config.frame_range
    source = open_source(
        config.input,
        frames=slice(first, end),
        stream=config.stream,
        deinterlace=config.deinterlace,
        pixel_limit=config.max_pixels,
        limit_s=config.read_timeout,
        reader=config.reader,
        drop=config.drop,
        backoff=Backoff(config.reconnect),
        offline=config.offline,
    )
    with contextlib.closing(source):
        opened(source)
        prompts = parse_prompts(
            boxes=config.box, points=config.point, masks=config.mask, video=source.info, first_frame=first
        )
        late = [p.frame_index for p in prompts if p.frame_index < first or (end is not None and p.frame_index >= end)]
        if late:
            raise UsageError(f"a prompt is on frame {late[0]}, outside --frames {config.frames}")
        folder = config.output or Path("runs") / safe_name(source.info.name)
        manifest = new_manifest(config, source.info)
        old = check_folder(folder, manifest, config, live=source.live)
        if old is not None and old["status"] in ("done", "partial"):
            (folder / resume.SNAPSHOT).unlink(missing_ok=True)  # when the kill came right after the end
            return _summary_of(old, folder)

        clock = StageClock()
        loaders = loaders or Loaders()
        with clock("load"):
            sam, tracker, detector = loaders.sam(config), loaders.tracker(config), loaders.detector(config)
        if source.live and tracker.lookahead == sys.maxsize:
            raise UsageError(
                f"--tracker {config.tracker} with these settings holds every frame back until the end, and a live"
                " source has none: use settings that give results on the way (not mode=offline)"
            )
        if not all(file["sha256"] for file in manifest["weights"].values()):  # fetched just now
            manifest["weights"] = weights_of(config)
        segmenter = Segmenter(
            tracker,
            sam,
            Refiner(sam, RefineOptions(config.refine, zoom=config.zoom)),
            prompts=prompts,
            max_objects=config.max_objects,
            detector=detector,
            detect_every=config.detect_every,
            batch=config.batch,
            clock=clock,
        )
        return _Run(config, source, segmenter, folder, manifest, clock, resuming=old is not None).go(started)


class _Run:
    """The part of a run that writes: sinks, snapshots, manifest."""

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        segmenter: Segmenter,
        folder: Path,
        manifest: dict[str, Any],
        clock: StageClock,
        *,
        resuming: bool,
    ) -> None:
        self.config, self.source, self.segmenter = config, source, segmenter
        self.folder, self.manifest, self.clock = make_folder(folder), manifest, clock
        self.tally = _Tally()
        self.davis = DavisSink(folder / "davis") if "davis" in config.saves else None
        self.left_out: list[str] = []
        self._manifest("running")  # before any other file: without it a killed run could not be resumed
        self.journal = folder / JOURNAL
        self.first = self.next_frame = config.frame_range[0]
        segmenter.start(replace(source.info, end=config.frame_range[1]))
        snapshot = resume.load_snapshot(folder) if resuming else None
        if snapshot is not None:
            self.next_frame = snapshot.next_frame
            segmenter.load_state_dict(snapshot.state, snapshot.next_frame)
        self.last_snapshot = self.next_frame
        self.append = resuming and self.journal.exists()
        if self.append:
            truncate_journal(self.journal, self.next_frame)
        self.overlay = OverlaySink(folder / OVERLAY, source.info) if "overlay" in config.saves else None
        self.pictures = ThumbnailSink() if "report" in config.saves else None

    def go(self, started: Started | None) -> RunSummary:
        """Stream the video; finish the files however it ends."""
        begun = time.perf_counter()
        # Sinks that cannot be appended to see all frames again when a run is resumed.
        replayed: list[Sink] = [s for s in (self.tally, self.overlay, self.pictures) if s is not None]
        davis = [self.davis] if self.davis else []
        # The journal is last: a frame in it is in all other outputs too.
        sinks: list[Sink] = [*replayed, *davis, JournalSink(self.journal, append=self.append)]
        advance = started(self.source.info, self._total()) if started else lambda frames, objects: None
        status = "failed"
        try:
            with contextlib.ExitStack() as stack:
                for sink in sinks:
                    stack.callback(sink.close)
                stream(
                    self._remaining(replayed),
                    self.segmenter,
                    sinks,
                    batch=self.config.batch,
                    clock=self.clock,
                    advance=advance,
                    snapshot=self._snapshot,
                    cancel=self.source.stop,
                )
            self._export()
            status = "partial" if self._warnings() else "done"
        except KeyboardInterrupt:
            self._export()
            status = "interrupted"
            raise
        finally:
            if status == "failed" and not self.tally.frames and not self.append:
                discard_folder(self.folder)  # nothing to go on from
            else:
                with contextlib.suppress(OutputError) if status == "failed" else contextlib.nullcontext():
                    self._manifest(status, time.perf_counter() - begun)
        (self.folder / resume.SNAPSHOT).unlink(missing_ok=True)
        return _summary_of(self.manifest, self.folder)

    def _total(self) -> int | None:
        """Frames still to do, when the container knows its length."""
        end, count = self.config.frame_range[1], self.source.info.frame_count
        last = end if count is None else min(count, end or count)
        return None if last is None else max(0, last - self.next_frame)

    def _remaining(self, replayed: Iterable[Sink]) -> Iterator[Frame]:
        """Frames still to do; those that the journal holds only pass by the ``replayed`` sinks."""
        done = read_journal(self.journal) if self.next_frame > self.first else iter(())
        for frame in self.source:
            if frame.index < self.next_frame:
                masks = next(done, None)
                if masks is None or masks.frame_index != frame.index:
                    raise UsageError(f"--resume: {self.journal} lacks frame {frame.index}; use --overwrite")
                for sink in replayed:
                    sink.write(frame, masks)
            else:
                yield frame

    def _snapshot(self, next_frame: int) -> Callable[[], None] | None:
        if next_frame - self.last_snapshot < self.config.snapshot_every:
            return None
        state = self.segmenter.state_dict()
        if state is None:
            return None
        self.last_snapshot = next_frame
        return lambda: resume.save_snapshot(self.folder, resume.Snapshot(next_frame, state))

    def _export(self) -> None:
        with self.clock("export"):
            for name in self.config.saves:
                if name == "report" and self.pictures is not None:
                    path = self.folder / "report.html"
                    write_report(self.journal, path, title=self.source.info.name, pictures=self.pictures.pictures)
                elif name in EXPORTERS and name != "davis":
                    try:
                        EXPORTERS[name](self.journal, self.folder)
                    except PartialError as error:
                        self.left_out.append(str(error))

    def _warnings(self) -> list[str]:
        davis = self.davis.warnings if self.davis else []
        return [*self.source.warnings, *self.segmenter.warnings, *davis, *self.left_out]

    def _manifest(self, status: str, seconds: float = 0.0) -> None:
        frames = self.tally.frames
        self.manifest |= {
            "status": status,
            "frames": frames,
            "objects": sorted(self.tally.objects),
            "wall_seconds": round(seconds, 3),
            "fps": round(frames / seconds, 3) if seconds else 0.0,
            "seconds": self.clock.seconds(),
            "warnings": self._warnings(),
            "notes": [*self.source.notes, *self.segmenter.notes],
        }
        if self.source.live:
            self.manifest["gap"] = asdict(self.tally.gap)
        resume.write_manifest(self.folder, self.manifest)


def _summary_of(manifest: Mapping[str, Any], folder: Path) -> RunSummary:
    outputs = tuple(folder / name for name in OUTPUTS if (folder / name).exists())
    return RunSummary(
        folder,
        manifest["status"],
        manifest["frames"],
        tuple(manifest["objects"]),
        manifest["fps"],
        tuple(manifest["warnings"]),
        outputs,
        Gap(**manifest.get("gap", {})),
        tuple(manifest.get("notes", ())),
    )
