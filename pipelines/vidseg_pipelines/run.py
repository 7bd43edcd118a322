"""One video, from its configuration to its output folder: what ``vidseg run`` and ``segment_video`` do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidseg.classes import ClassSet, read_classes
from vidseg.config import RunConfig
from vidseg.errors import UsageError, did_you_mean
from vidseg.loading import load_sam
from vidseg.names import safe_name
from vidseg.outputs.folder import claimed, keep_apart
from vidseg.outputs.layout import JOURNAL, SNAPSHOT
from vidseg.prompt_text import parse_prompts
from vidseg.registry import build_detector, build_tracker, check_name
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import SegmentAnything
from vidseg.types import Detector, Prompt, Source, Tracker, VideoInfo
from vidseg.video import Backoff, open_source
from vidseg_pipelines import resume
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.run_folder import check_folder, input_files, new_manifest, output_files, weights_of
from vidseg_pipelines.run_output import RunOutput, RunSummary, Started
from vidseg_pipelines.segmenter import Segmenter


def load_run_sam(config: RunConfig, progress: Callable[[int, int | None], None] | None = None) -> SegmentAnything:
    """The HQ-SAM of a run; ``progress`` is told of a download."""
    return load_sam(config.model, progress=progress, **_place(config))


def _load_tracker(config: RunConfig) -> Tracker:
    return build_tracker(config.tracker, config.all_tracker_options(), **_place(config))


def _load_detector(config: RunConfig) -> Detector | None:
    return build_detector(config.detector, config.all_detector_options(), **_place(config)) if config.detector else None


def _place(config: RunConfig) -> dict[str, Any]:
    device = resolve_device(config.device)
    return {"device": device, "dtype": resolve_dtype(config.dtype, device), "offline": config.offline}


@dataclass(frozen=True)
class Loaders:
    """Where a run gets its models from; a worker that does many videos gives loaders that remember."""

    sam: Callable[[RunConfig], SegmentAnything] = load_run_sam
    tracker: Callable[[RunConfig], Tracker] = _load_tracker
    detector: Callable[[RunConfig], Detector | None] = _load_detector


def run_video(
    config: RunConfig,
    *,
    on_start: Started | None = None,
    loaders: Loaders | None = None,
    on_open: Callable[[Source], None] = lambda source: None,
) -> RunSummary:
    """Segment one video into its output folder.

    ``on_start(info, total_frames)`` is called once before the first frame and returns the function that is told of
    progress: ``advance(frames, objects)``. ``loaders`` give the models (default: load what ``config`` names); they are
    asked only when there is something to do. ``on_open(source)`` is called when the input is open; ``source.stop()``
    then ends the run early and in order: what was read is segmented and written.

    Raises:
        UsageError: wrong settings or prompts; the output folder exists and neither resume nor overwrite is set, or
            another process writes there; an input lies among the outputs.
        InputError: the video cannot be read, or holds no frame.
        WeightsError: weights are missing or wrong.
        OutputError: a result cannot be written. What was written before stays valid.
    """
    if not config.input:
        raise UsageError("which video? vidseg run VIDEO (a file, a folder of images, a camera, a stream, or -)")
    config.check()
    check_name("tracker", config.tracker)
    if config.detector:
        check_name("detector", config.detector)
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
        on_open(source)
        prompts = parse_prompts(
            boxes=config.box, points=config.point, masks=config.mask, video=source.info, first_frame=first
        )
        _check_frames(prompts, config, source.info)
        classes = None if config.classes is None else _read_classes(config)
        folder = config.output or Path("runs") / safe_name(source.info.name)
        keep_apart(input_files(config), output_files(folder, config.saves))
        with claimed(folder):
            return _run_in(folder, config, source, prompts, classes, loaders or Loaders(), on_start)


def _read_classes(config: RunConfig) -> ClassSet:
    """The class file of a run (UsageError: it lacks a name of ``--label``)."""
    assert config.classes is not None
    classes = read_classes(config.classes)
    for object_id, name in config.names.items():
        if name not in classes.ids:
            near = did_you_mean(name, classes.names)
            raise UsageError(f"--label {object_id}={name}{near}: {config.classes} has no such class")
    return classes


def _run_in(
    folder: Path,
    config: RunConfig,
    source: Source,
    prompts: Sequence[Prompt],
    classes: ClassSet | None,
    loaders: Loaders,
    on_start: Started | None,
) -> RunSummary:
    """The run in its folder, which nobody else writes to."""
    manifest = new_manifest(config, source.info)
    old = check_folder(folder, manifest, config, live=source.live)
    if old is not None and old["status"] in ("done", "partial"):
        (folder / SNAPSHOT).unlink(missing_ok=True)  # when the kill came right after the end
        return RunSummary.of(old, folder)
    snapshot = None if old is None else resume.load_snapshot(folder, old)
    if snapshot is not None:
        resume.check_journal(folder / JOURNAL, snapshot.next_frame)

    clock = StageClock()
    with clock("load"):
        sam, tracker, detector = loaders.sam(config), loaders.tracker(config), loaders.detector(config)
    numbers = classes.ids if classes else getattr(detector, "classes", None) or getattr(tracker, "classes", None)
    if numbers:
        manifest["classes"] = dict(numbers)
    if source.live and tracker.lookahead == sys.maxsize:
        raise UsageError(
            f"--tracker {config.tracker} with these settings holds every frame back until the end, and a live"
            " source has none: use settings that give results on the way (not mode=offline)"
        )
    if not all(file["sha256"] for file in manifest["weights"].values()):  # fetched just now
        manifest["weights"] = weights_of(config)
    dtype = str(resolve_dtype(config.dtype, sam.device)).removeprefix("torch.")
    manifest["used"] = {"device": str(sam.device), "dtype": dtype, "threads": torch.get_num_threads()}
    segmenter = Segmenter(
        tracker,
        sam,
        Refiner(sam, RefineOptions(config.refine, zoom=config.zoom)),
        prompts=prompts,
        names=config.names,
        max_objects=config.max_objects,
        detector=detector,
        detect_every=config.detect_every,
        batch=config.batch,
        clock=clock,
    )
    output = RunOutput(config, source, segmenter, folder, manifest, clock, prompts=prompts, old=old, snapshot=snapshot)
    return output.write(on_start)


def _check_frames(prompts: Sequence[Prompt], config: RunConfig, video: VideoInfo) -> None:
    """Refuse prompts on frames that cannot come."""
    first, end = config.frame_range
    for prompt in prompts:
        index = prompt.frame_index
        if index < first or (end is not None and index >= end):
            raise UsageError(f"a prompt is on frame {index}, outside --frames {config.frames}")
        if video.frames_are_listed and video.frame_count is not None and index >= video.frame_count:
            raise UsageError(
                f"a prompt is on frame {index}, but {video.name} has {video.frame_count} frames, 0 to"
                f" {video.frame_count - 1}"
            )
