"""What a run writes into its folder: results while it goes on, exports and the manifest at the end."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vidseg.config import RunConfig
from vidseg.errors import InputError, OutputError
from vidseg.outputs import (
    WRITERS,
    DavisSink,
    JournalSink,
    OverlaySink,
    ThumbnailSink,
    export,
    open_recording,
    read_journal,
    truncate_journal,
)
from vidseg.outputs.layout import DAVIS, JOURNAL, OVERLAY, SNAPSHOT
from vidseg.types import Frame, FrameMasks, Gap, Prompt, Sink, Source, VideoInfo
from vidseg_pipelines import resume
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.run_folder import clear_folder, clear_unfinished, output_files, saved_before
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.streaming import Advance, stream
from vidseg_pipelines.unused import UnusedPrompts

Started = Callable[[VideoInfo, int | None], Advance]

MAX_WARNINGS = 50
"""Different warnings that a run keeps."""


@dataclass(frozen=True)
class RunSummary:
    """What a run gave.

    ``status`` is "done", or "partial" when something of the input came to nothing (see ``warnings``); ``notes`` name no
    fault.
    """

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

    @classmethod
    def of(cls, manifest: Mapping[str, Any], folder: Path) -> RunSummary:
        """The summary of the run that ``manifest`` describes."""
        return cls(
            folder,
            manifest["status"],
            manifest["frames"],
            tuple(manifest["objects"]),
            manifest["fps"],
            tuple(manifest["warnings"]),
            tuple(path for path in output_files(folder, saved_before(folder)) if path.exists()),
            Gap(**manifest.get("gap", {})),
            tuple(manifest.get("notes", ())),
        )


@dataclass
class _CountingSink:
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


class RunOutput:
    """The part of a run that writes. Nothing in its folder changes before the first frame has been read."""

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        segmenter: Segmenter,
        folder: Path,
        manifest: dict[str, Any],
        clock: StageClock,
        *,
        prompts: Sequence[Prompt] = (),
        old: Mapping[str, Any] | None = None,
        snapshot: resume.Snapshot | None = None,
    ) -> None:
        """Name all parts. ``old`` is the manifest of the run that goes on, ``snapshot`` where; None: a new run."""
        self.config, self.source, self.segmenter = config, source, segmenter
        self.folder, self.manifest, self.clock = folder, manifest, clock
        self.journal = folder / JOURNAL
        self.resuming, self.snapshot = old is not None, snapshot
        self.first = self.next_frame = config.frame_range[0]
        if snapshot is not None:
            self.next_frame = snapshot.next_frame
        self.last_snapshot = self.next_frame
        self.counts = _CountingSink()
        self.pictures: ThumbnailSink | None = None
        self.davis: DavisSink | None = None
        self.left_out: list[str] = []
        self.unused = UnusedPrompts(prompts)
        if old is not None and self.next_frame > self.first:
            here = {"frame": self.next_frame, "used_before": old.get("used")}
            self.manifest["resumed"] = [*old.get("resumed", ()), here]

    def write(self, on_start: Started | None) -> RunSummary:
        """Stream the video; finish the files however it ends."""
        begun = time.perf_counter()
        frames = self._begin_reading()
        status, losses = "failed", list[str]()
        try:
            sinks, replayed = self._begin_writing()
            with contextlib.ExitStack() as stack:
                for sink in sinks:
                    stack.callback(sink.close)
                advance = on_start(self.source.info, self._total()) if on_start else lambda frames, objects: None
                stream(
                    self._remaining(frames, replayed),
                    self.segmenter,
                    sinks,
                    batch=self.config.batch,
                    clock=self.clock,
                    advance=advance,
                    snapshot=self._snapshot,
                    cancel=self.source.stop,
                )
            self._export()
            losses = [*self._losses(), *self.unused.warnings()]
            status = "partial" if losses else "done"
        except KeyboardInterrupt:
            status = "interrupted"
            if self.counts.frames:
                self._export()
            raise
        finally:
            with contextlib.suppress(OutputError) if status == "failed" else contextlib.nullcontext():
                if self.counts.frames or self.resuming or status in ("done", "partial"):
                    self._manifest(status, time.perf_counter() - begun, losses or self._losses())
                else:
                    clear_folder(self.folder)  # nothing to go on from
        (self.folder / SNAPSHOT).unlink(missing_ok=True)
        return RunSummary.of(self.manifest, self.folder)

    def _begin_reading(self) -> Iterator[Frame]:
        """The frames of the source; refuses a source without any."""
        self.segmenter.start(replace(self.source.info, end=self.config.frame_range[1]))
        if self.snapshot is not None:
            try:
                self.segmenter.load_state_dict(self.snapshot.state, self.next_frame)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise resume.unusable(self.folder) from error
        frames = iter(self.source)
        first = next(frames, None)
        if first is None:
            reasons = "; ".join(bounded(self.source.warnings)[:3])
            raise InputError(f"{self.source.info.name}: not one frame could be read{': ' if reasons else ''}{reasons}")
        return chain([first], frames)

    def _begin_writing(self) -> tuple[list[Sink], list[Sink]]:
        """All sinks, and those that see all frames again in a resumed run because they cannot be appended to."""
        if self.resuming:
            clear_unfinished(self.folder)
        else:
            clear_folder(self.folder)
        self._manifest("running")  # before any other file: without it a killed run could not be resumed
        append = self.resuming and self.journal.exists()
        if append:
            truncate_journal(self.journal, self.next_frame)
        saves = self.config.saves
        self.pictures = ThumbnailSink() if "report" in saves else None
        overlay = OverlaySink(self.folder / OVERLAY, self.source.info) if "overlay" in saves else None
        replayed: list[Sink] = [sink for sink in (self.counts, overlay, self.pictures) if sink is not None]
        self.davis = DavisSink(self.folder / DAVIS) if "davis" in saves else None
        # The journal is last: a frame in it was given to all other outputs.
        appended = [sink for sink in (self.davis, JournalSink(self.journal, append=append)) if sink is not None]
        return [*replayed, *appended], replayed

    def _total(self) -> int | None:
        """Frames still to do, when the container knows its length."""
        end, count = self.config.frame_range[1], self.source.info.frame_count
        last = end if count is None else min(count, end or count)
        return None if last is None else max(0, last - self.next_frame)

    def _remaining(self, frames: Iterable[Frame], replayed: Iterable[Sink]) -> Iterator[Frame]:
        """Frames still to do; those that the journal holds only pass by the ``replayed`` sinks."""
        done = read_journal(self.journal) if self.next_frame > self.first else iter(())
        for frame in self.unused.watch(frames):
            if frame.index < self.next_frame:
                masks = next(done, None)
                if masks is None or masks.frame_index != frame.index:
                    raise resume.lacking(self.journal, frame.index)
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
        return lambda: resume.save_snapshot(self.folder, resume.Snapshot(next_frame, state), self.manifest)

    def _export(self) -> None:
        with self.clock("export"):
            names = [name for name in self.config.saves if name in WRITERS and name != "davis"]
            if names:
                recording = open_recording(self.journal)
                if self.pictures is not None:
                    recording = replace(recording, pictures=self.pictures.pictures)
                self.left_out += export(recording, self.folder, names)

    def _losses(self) -> list[str]:
        """What of the input came to nothing."""
        davis = self.davis.warnings if self.davis else []
        return [*self.source.warnings, *self.segmenter.warnings, *davis, *self.left_out]

    def _moves(self) -> list[str]:
        """Where the run went on with another kind of device or number: its masks may differ in a few pixels."""
        now, moves = self.manifest["used"], []
        for place in self.manifest.get("resumed", ()):
            before = place["used_before"]
            if before and kind(before) != kind(now):
                moves.append(f"frames before {place['frame']} were made on {kind(before)}, later ones on {kind(now)}")
        return moves

    def _manifest(self, status: str, seconds: float = 0.0, losses: Sequence[str] = ()) -> None:
        frames = self.counts.frames
        self.manifest |= {
            "status": status,
            "frames": frames,
            "objects": sorted(self.counts.objects),
            "wall_seconds": round(seconds, 3),
            "fps": round(frames / seconds, 3) if seconds else 0.0,
            "seconds": self.clock.seconds(),
            "warnings": bounded([*self._moves(), *(self.segmenter.doubts if status != "running" else ()), *losses]),
            "notes": bounded([*self.source.notes, *self.segmenter.notes]),
        }
        if self.source.live:
            self.manifest["gap"] = asdict(self.counts.gap)
        resume.write_manifest(self.folder, self.manifest)


def kind(used: Mapping[str, Any]) -> str:
    """Kind of device and number that a run used: "cuda in bfloat16"."""
    return f"{str(used['device']).partition(':')[0]} in {used['dtype']}"


def bounded(lines: Sequence[str]) -> list[str]:
    """Equal lines as one with their count, and at most :data:`MAX_WARNINGS` of them."""
    counts = Counter(lines)
    texts = [line if count == 1 else f"{line} ({count} times)" for line, count in counts.items()]
    if len(texts) <= MAX_WARNINGS:
        return texts
    return [*texts[: MAX_WARNINGS - 1], f"... and {len(texts) - MAX_WARNINGS + 1} more"]
