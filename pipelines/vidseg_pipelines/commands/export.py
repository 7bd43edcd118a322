"""``vidseg export``: other formats from a finished or interrupted run."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import tyro

from vidseg.address import parse_address
from vidseg.atomic_files import clear_parts, make_folder, move_into
from vidseg.classes import read_classes
from vidseg.config import SAVES
from vidseg.errors import InputError, PartialError, UsageError, did_you_mean
from vidseg.files import is_pattern
from vidseg.limits import PIXEL_LIMIT
from vidseg.names import part_of, printable
from vidseg.object_texts import names_by_id
from vidseg.outputs.layout import EXPORTED, JOURNAL, MANIFEST
from vidseg.outputs.style import OverlayStyle, parse_style
from vidseg.storage import object_url
from vidseg.storage_cache import here

if TYPE_CHECKING:
    from vidseg.outputs.recording import Recording
    from vidseg.outputs.thumbnails import Picture


@dataclass(frozen=True)
class ExportCommand:
    """Convert the journal of a run to other formats; those that show frames also need the video.

    Examples:
      vidseg export runs/dog --to coco,labelme
      vidseg export runs/dog --to overlay --output dog-overlay
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Output folder of a run (with masks.jsonl), or its URL in object storage."""
    to: str
    """Comma-separated: davis, ytvis, coco, coco-results, mots, mots-png, cvat, labelme, label-studio, yolo,
    datumaro, parquet, frames, cutout, cutout-webm, overlay, report (see docs/formats.md)."""
    objects: str = ""
    """Only these objects: comma-separated ids (default: all)."""
    label: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """ID=NAME - name of an object, replacing the one from the run. May be repeated."""
    classes: Path | None = None
    """Names of all classes, replacing those of the run; their numbers are then the same in the files of every run."""
    video_id: int | None = None
    """Number of the video in coco and ytvis files: give each video its own to merge the files (default: that of the
    run; vidseg batch gives each video one)."""
    output: Path | None = None
    """Folder to write to, or its URL in object storage (default: RUN_DIR)."""
    overlay_style: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE[,KEY=VALUE] - style of the overlay, see `vidseg run --help`. May be repeated."""
    input: str | None = None
    """The video, for formats that show frames (default: the one named in run.json)."""
    max_pixels: int = PIXEL_LIMIT
    """Largest allowed frame of that video in pixels; raise it only for a video that you trust."""

    def run(self) -> int:
        """Write every format; 0 when done, 5 when one cannot represent the run and is left out.

        Every format is written to a temporary folder and moved to its name when complete.

        Raises:
            UsageError: unknown format; another process writes to the folder; an input would be overwritten.
            InputError: no run in the folder, or the video is missing.
            OutputError: a file cannot be written.
        """
        if object_url(self.run_dir) or object_url(self.output):
            from vidseg_pipelines.remote_export import exported

            with exported(self.run_dir, self.output) as (run_dir, output):
                return replace(self, run_dir=run_dir, output=output).run()
        names = [name.strip() for name in self.to.split(",") if name.strip()]
        if not names:
            raise UsageError(f"--to: name one or more of {', '.join(SAVES)}")
        for name in names:
            if name not in SAVES:
                raise UsageError(f"--to {name}{did_you_mean(name, SAVES)}: allowed are {', '.join(SAVES)}")
        if self.video_id is not None and self.video_id < 1:
            raise UsageError(f"--video-id {self.video_id}: must be at least 1")
        style = parse_style(self.overlay_style)
        renamed = names_by_id(self.label)
        only = self._only()
        classes = None if self.classes is None else read_classes(self.classes)
        journal = self.run_dir / JOURNAL
        if not journal.is_file():
            raise InputError(f"{self.run_dir}: contains no {JOURNAL}; give the output folder of a run")

        from vidseg.outputs import FROM_FRAMES, WRITERS, export, open_recording
        from vidseg.outputs.folder import claimed, keep_apart

        folder = self.output or self.run_dir
        drawn = [name for name in names if name in FROM_FRAMES]
        pictures: list[str] = []  # what goes without them
        video = self.input
        if drawn and video is None:
            try:
                video = _video_of(self.run_dir)
            except InputError as error:
                if not set(drawn) <= WRITERS.keys():
                    raise
                pictures = [f"{', '.join(drawn)}: without the frames' images: {error}"]
        videos = [name for name in (video, _input_of(self.run_dir)) if name is not None]
        keep_apart([journal, self.run_dir / MANIFEST, *videos], [folder / EXPORTED[name] for name in names])
        with claimed(folder), _beside(folder) as scratch:
            recording = open_recording(journal, names=renamed, only=only, classes=classes, video_id=self.video_id)
            if only and not recording.labels:
                raise UsageError(f"--objects {self.objects}: the run has none of them")
            if drawn and video is not None:
                shown = export_frames(
                    recording, video, scratch, drawn, style, pixel_limit=self.max_pixels, **_reading_of(self.run_dir)
                )
                recording = replace(recording, pictures=shown)
            named = [("--objects", i) for i in only] + [("--label", i) for i in renamed]
            missing = [f"{flag} {i}: the run has no object {i}" for flag, i in named if i not in recording.labels]
            left_out = [*pictures, *export(recording, scratch, [name for name in names if name in WRITERS])]
            for name in names:
                move_into(scratch / EXPORTED[name], folder)
        for kind, texts in (("note", missing), ("warning", left_out)):
            sys.stderr.writelines(f"{kind}: {printable(text)}\n" for text in texts)
        return PartialError.exit_code if left_out else 0

    def _only(self) -> list[int]:
        try:
            return [int(part) for part in self.objects.split(",") if part.strip()]
        except ValueError as error:
            raise UsageError(f"--objects {self.objects}: expected comma-separated ids, e.g. 1,3") from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, which must be locked; those of killed exports are removed."""
    clear_parts(folder)
    scratch = make_folder(part_of(folder / "export"))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def export_frames(
    recording: Recording,
    video: str,
    folder: Path,
    names: Sequence[str],
    style: OverlayStyle,
    *,
    stream: int | None = None,
    deinterlace: bool = False,
    pixel_limit: int = PIXEL_LIMIT,
) -> Mapping[int, Picture]:
    """Write what formats need of the frames of a recording's video, read as :func:`vidseg.video.open_source` does;
    gives the images of the report.

    Raises:
        InputError: the video cannot be read or is not the recording's.
        OutputError: a file cannot be written.
    """
    from vidseg.outputs import ThumbnailSink, frame_sinks, video_sinks
    from vidseg.video import open_source

    results = recording.read()
    masks = next(results, None)
    with contextlib.ExitStack() as stack:
        source = open_source(video, stream=stream, deinterlace=deinterlace, pixel_limit=pixel_limit)
        stack.callback(source.close)
        info = replace(source.info, name=recording.video)
        report = ThumbnailSink()
        sinks = [
            *([report] if "report" in names else []),
            *frame_sinks(folder, names, info, recording.stills),
            *video_sinks(folder, names, info, style, here(video) if object_url(video) else Path(video)),
        ]
        for sink in sinks:
            stack.callback(sink.close)
        for frame in source:
            if masks is None:
                break
            if frame.index == masks.frame_index:
                if masks.hw not in (None, frame.hw):
                    raise InputError(f"{video}: its frames are not of the size of the masks in {recording.journal}")
                for sink in sinks:
                    sink.write(frame, masks)
                masks = next(results, None)
    if masks is not None:
        missing = f"has no frame {masks.frame_index}, which {recording.journal} names"
        raise InputError(f"{video}: {missing}; is it another video?")
    return report.pictures


def _video_of(run_dir: Path) -> str:
    """The video that a run names as its input."""
    video = _input_of(run_dir)
    if video is None:
        raise InputError(f"{run_dir / MANIFEST}: does not name the video; give it with --input")
    if parse_address(video).kind == "object":
        return video
    if parse_address(video).kind != "file":
        raise InputError(f"{video} was not a file: give a recording of it with --input")
    if not is_pattern(video) and not Path(video).exists():
        raise InputError(f"{video}: no such file; give it with --input")
    return video


class _Reading(TypedDict, total=False):
    stream: int
    deinterlace: bool


def _reading_of(run_dir: Path) -> _Reading:
    """How a run read its video, as recorded in its manifest; only the user raises the pixel limit."""
    reading: _Reading = {}
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        config = json.loads((run_dir / MANIFEST).read_bytes())["config"]
        if isinstance(config.get("stream"), int):
            reading["stream"] = config["stream"]
        reading["deinterlace"] = config.get("deinterlace") is True
    return reading


def _input_of(run_dir: Path) -> str | None:
    """The input named in the manifest of a run, if any."""
    try:
        return str(json.loads((run_dir / MANIFEST).read_bytes())["input"]["path"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
