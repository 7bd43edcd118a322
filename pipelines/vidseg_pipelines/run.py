"""One video, from its configuration to its output folder: what ``vidseg run`` and ``segment_video`` do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg.classes import ClassSet, read_classes
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.prompt_text import boxes_beyond, parse_prompts
from vidseg.sam.model import SegmentAnything
from vidseg.storage import object_url
from vidseg.types import Detector, Prompt, Source, Tracker, VideoInfo
from vidseg.video import Backoff, open_source
from vidseg_pipelines.backward import way_back
from vidseg_pipelines.build import ModelChoice
from vidseg_pipelines.clock import StageClock
from vidseg_pipelines.continuation import labelled_objects, start_of, with_all_exports, with_all_said
from vidseg_pipelines.made_of import MadeOf
from vidseg_pipelines.manifest import for_models, new_manifest, record_earlier, record_models
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.remote_folder import RemoteFolder
from vidseg_pipelines.run_folder import FINISHED, RunFolder
from vidseg_pipelines.run_inputs import input_files
from vidseg_pipelines.run_output import Run, Started, write_run
from vidseg_pipelines.run_summary import RunSummary
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.settings import check_direction, check_settings
from vidseg_pipelines.unused import UnusedPrompts


def models_of(config: RunConfig) -> ModelChoice:
    """The models that a configuration names."""
    return ModelChoice(
        tracker=config.tracker,
        model=config.model,
        refine=config.refine,
        zoom=config.zoom,
        keep_still=config.keep_still,
        detector=config.detector or None,
        device=config.device,
        dtype=config.dtype,
        compile=config.compile,
        tracker_options=config.all_tracker_options(),
        detector_options=config.all_detector_options() if config.detector else None,
        offline=config.offline,
    )


def load_run_sam(config: RunConfig, progress: Callable[[int, int | None], None] | None = None) -> SegmentAnything:
    """The HQ-SAM of a run; ``progress`` is called while it is downloaded."""
    return models_of(config).load_sam(progress)


def _load_tracker(config: RunConfig) -> Tracker:
    return models_of(config).load_tracker()


def _load_detector(config: RunConfig) -> Detector | None:
    return models_of(config).load_detector()


@dataclass(frozen=True)
class Loaders:
    """Where a run gets its models from; a worker that does many videos gives loaders that remember."""

    sam: Callable[[RunConfig], SegmentAnything] = load_run_sam
    tracker: Callable[[RunConfig], Tracker] = _load_tracker
    detector: Callable[[RunConfig], Detector | None] = _load_detector


def run_video(
    config: RunConfig,
    *,
    prompts: Sequence[Prompt] = (),
    on_start: Started | None = None,
    loaders: Loaders | None = None,
    on_open: Callable[[Source], None] = lambda source: None,
) -> RunSummary:
    """Segment one video into its output folder.

    ``prompts`` are there besides those of ``config``. ``on_start(info, total_frames)`` is called once before the first
    frame and returns the function that is called with the progress: ``advance(results)``. ``loaders`` give the
    models (default: load what ``config`` names); they are asked only when there is something to do. ``on_open(source)``
    is called when the input is open; ``source.stop()`` then ends the run early and in order: what was read is segmented
    and written. An output that is a URL of object storage is worked on in a folder here, and uploaded:
    :mod:`vidseg_pipelines.remote_folder`.

    Raises:
        UsageError: wrong settings or prompts; the output folder exists and neither resume nor overwrite is set, or
            another process writes there; an input lies among the outputs.
        InputError: the video cannot be read, or holds no frame.
        WeightsError: weights are missing or wrong.
        OutputError: a result cannot be written. What was written before stays valid.
    """
    check_settings(config)
    url = object_url(config.output)
    if url is None:
        return _run_here(config, prompts, on_start, loaders, on_open)
    remote = RemoteFolder(url)
    with remote.claimed() as lease:
        remote.fetch(config)
        with remote.mirrored(lease):
            summary = _run_here(replace(config, output=remote.work), prompts, on_start, loaders, on_open)
        return replace(summary, folder=remote.path, outputs=tuple(remote.written()))


def _run_here(
    config: RunConfig,
    prompts: Sequence[Prompt],
    on_start: Started | None,
    loaders: Loaders | None,
    on_open: Callable[[Source], None],
) -> RunSummary:
    """:func:`run_video` into a folder of this machine."""
    with contextlib.closing(_open(config)) as source:
        on_open(source)
        check_direction(config, live=source.live)
        classes = _read_classes(config)
        folder = RunFolder.of(config, source.info)
        if config.continue_:
            config = with_all_exports(config, folder)
        with folder.claimed(reading=input_files(config), saves=config.saves):
            earlier, said = folder.earlier_run(config, live=source.live), None
            if earlier is not None and config.continue_:
                config, said = with_all_said(config, earlier, folder, source.info, prompts)
            labelled, notes = labelled_objects(config, source.info)
            source.notes.extend(notes)
            all_prompts = _read_prompts(config, source.info, [*prompts, *labelled])
            source.notes.extend(boxes_beyond(config.box, (source.info.height, source.info.width)))
            manifest = new_manifest(config, source.info, prompts)
            made_of = MadeOf(manifest, all_prompts, config.removals)
            start = start_of(config, folder, earlier, made_of, said)
            if said is None and earlier is not None and earlier["status"] in FINISHED:
                folder.remove_snapshot()  # when the kill came right after the end
                return RunSummary.of(earlier, folder)
            segmenter = _load(for_models(config, earlier), source, all_prompts, loaders or Loaders())
            record_models(manifest, config, segmenter, classes, earlier)
            if earlier is not None:
                record_earlier(manifest, earlier, start.keep, start.corrected)
            unused = UnusedPrompts(all_prompts, config.removals)
            back = way_back(config, segmenter.tracker, all_prompts)
            return write_run(Run(config, source, segmenter, folder, manifest, made_of, unused, start, back), on_start)


def folder_of(video: str, output: str | Path | None) -> Path:
    """The output folder of a run: ``output``, or the one called after the video.

    Raises:
        UsageError: neither is given. InputError: the video cannot be read.
    """
    if output is not None:
        return Path(output)
    if not video:
        raise UsageError("which run? give its folder with --output, or the video that it was made from")
    config = RunConfig(input=video)
    with contextlib.closing(_open(config)) as source:
        return RunFolder.of(config, source.info).path


def _open(config: RunConfig) -> Source:
    first, end = config.frame_range
    return open_source(
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


def _load(config: RunConfig, source: Source, prompts: Sequence[Prompt], loaders: Loaders) -> Segmenter:
    """The models of a run, put together."""
    clock = StageClock()
    with clock("load"):
        sam, tracker, detector = loaders.sam(config), loaders.tracker(config), loaders.detector(config)
    if source.live and tracker.lookahead == sys.maxsize:
        raise UsageError(
            f"--tracker {config.tracker} with these settings holds every frame back until the end, and a live"
            " source has none: use settings that give results on the way (not mode=offline)"
        )
    return Segmenter(
        tracker,
        sam,
        Refiner(sam, RefineOptions(config.refine, zoom=config.zoom, keep_still=config.keep_still)),
        prompts=prompts,
        removals=config.removals,
        names=config.names,
        max_objects=config.max_objects,
        first_found_id=config.first_found_id,
        detector=detector,
        detect_every=config.detect_every,
        batch=config.batch,
        clock=clock,
    )


def _read_classes(config: RunConfig) -> ClassSet | None:
    """The class file of a run, if it has one (UsageError: it lacks a name of ``--label``)."""
    if config.classes is None:
        return None
    classes = read_classes(config.classes)
    for object_id, name in config.names.items():
        if name not in classes.ids:
            near = did_you_mean(name, classes.names)
            raise UsageError(f"--label {object_id}={name}{near}: {config.classes} has no such class")
    return classes


def _read_prompts(config: RunConfig, video: VideoInfo, given: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of a run; refuses those on frames that cannot come."""
    first, end = config.frame_range
    listed = video.frame_count if video.frames_are_listed else None
    if listed is not None and first >= listed:
        raise InputError(f"{video.name}: frames start at {first}, but it has only {listed} frames")
    prompts = parse_prompts(
        boxes=config.box,
        points=config.point,
        masks=config.mask,
        prompts=given,
        video=video,
        first_frame=first,
        first_found_id=config.first_found_id,
    )
    for prompt in prompts:
        index = prompt.frame_index
        if index < first or (end is not None and index >= end):
            raise UsageError(f"a prompt is on frame {index}, outside --frames {config.frames}")
        if listed is not None and index >= listed:
            raise UsageError(f"a prompt is on frame {index}, but {video.name} has {listed} frames, 0 to {listed - 1}")
    return prompts
