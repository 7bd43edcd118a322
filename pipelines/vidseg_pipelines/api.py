"""The Python front door: a file, any iterable of frames, the results of a run. One frame at a time: ``session``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from vidseg.config import RunConfig, from_mapping, load_yaml
from vidseg.errors import InputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.object_texts import names_by_id, parse_removals
from vidseg.outputs.layout import JOURNAL
from vidseg.prompt_text import check_prompts, fit_prompts, parse_prompts
from vidseg.sam.zoom import Zoom
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg_pipelines.build import ModelChoice, ModelSettings
from vidseg_pipelines.continuation import settings_with
from vidseg_pipelines.frame_intake import FrameIntake, FrameLike, as_frame
from vidseg_pipelines.prompt_forms import (
    Boxes,
    MaskFiles,
    Names,
    Points,
    Removals,
    box_texts,
    check_count,
    mask_texts,
    name_texts,
    point_texts,
    prompts_of,
    removal_texts,
)
from vidseg_pipelines.refiner import Mode
from vidseg_pipelines.remote_folder import folder_at
from vidseg_pipelines.run import folder_of, run_video
from vidseg_pipelines.run_summary import RunSummary
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.unused import UnusedPrompts

_TEXTS: Mapping[str, Callable[[Any], tuple[str, ...]]] = {
    "box": box_texts,
    "point": point_texts,
    "mask": mask_texts,
    "remove": removal_texts,
    "label": name_texts,
}


class RunSettings(TypedDict, total=False):
    """The settings of :func:`segment_video`; :class:`vidseg.config.RunConfig` says what each does."""

    tracker: str
    model: str | Path
    box: Boxes
    point: Points
    mask: MaskFiles
    from_: tuple[str, str | Path] | None
    remove: Removals
    label: Names
    classes: str | Path | None
    boxes: str | Path | None
    save: str | Sequence[str]
    overlay_style: str | Sequence[str]
    refine: Mode
    zoom: Zoom
    keep_still: bool
    max_objects: int
    detector: str | None
    detect_with: str
    text: str | None
    detect_every: int
    detector_options: Mapping[str, Any]
    detector_option: str | Sequence[str]
    direction: Literal["forward", "backward", "both"]
    frames: str | slice
    stream: int | None
    deinterlace: bool
    max_pixels: int
    batch: int
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    tracker_options: Mapping[str, Any]
    tracker_option: str | Sequence[str]
    snapshot_every: int
    video_id: int
    keep_states: int
    resume: bool
    continue_: bool
    overwrite: bool
    read_timeout: float
    reconnect: int
    drop: Literal["auto", "oldest", "none"]
    reader: Literal["pyav", "decord", "torchcodec", "nvdec"]
    offline: bool
    json_log: bool
    config: str | Path | None


def segment_video(
    video: str | Path = "",
    output: str | Path | None = None,
    *,
    prompts: Prompt | Iterable[Prompt] = (),
    **settings: Unpack[RunSettings],
) -> RunSummary:
    """What ``vidseg run`` does, without its progress: results go to the folder ``output`` (default runs/NAME).

    Args:
        video: a file, a folder or pattern of images, a camera or a stream; may be left out where ``continue_`` or
            ``resume`` goes on with the run in ``output``.
        output: the folder of the run.
        prompts: where the objects are, besides ``box``, ``point``, ``mask`` and ``from_``; none at all: they are found.
        settings: the fields of :class:`vidseg.config.RunConfig`. Prompts are texts as on the command line or numbers:
            ``box=(10, 10, 90, 80)``, ``box=["1@10,10,90,80", (5, 5, 30, 40)]``, ``point=(20, 30)``; ``detector`` is
            ``detect_with``, ``frames`` may be a slice. ``config="run.yaml"`` reads a file of them, over which those
            given here win. ``continue_=True`` is ``--continue``, ``from_=("labelme", folder)`` is
            ``--from labelme folder``.

    Raises:
        VidsegError: any error that the command line reports; see :mod:`vidseg.errors`.
    """
    if video is not None and not isinstance(video, (str, os.PathLike)):
        what = "a path or an address expected; frames that are there already go into segment_frames"
        raise UsageError(f"segment_video: video: {what}; got {type(video).__name__}")
    values: dict[str, Any] = {"input": "" if video is None else os.fsdecode(video), **settings}
    if output is not None:
        values["output"] = Path(output)
    for name, texts in _TEXTS.items():
        if name in values:
            values[name] = texts(values[name])
    if not isinstance(saves := values.get("save", ""), str):
        values["save"] = ",".join(saves) or "none"
    if isinstance(part := values.get("frames"), slice):
        values["frames"] = _part_text(part)
    if "detector" in values:
        values["detect_with"] = values.pop("detector") or ""
    if "model" in values:
        values["model"] = str(values["model"])
    given = prompts_of(prompts)
    if values.get("continue_") or (values.get("resume") and not values["input"]):
        values = settings_with(folder_of(values["input"], output), values)
    if values.get("config") is not None:
        return run_video(load_yaml(RunConfig, Path(values["config"]), **values), prompts=given)
    return run_video(from_mapping(RunConfig, values, where="segment_video"), prompts=given)


def segment_frames(
    frames: Iterable[FrameLike],
    *,
    prompts: Prompt | Iterable[Prompt] = (),
    box: Boxes = (),
    point: Points = (),
    mask: MaskFiles = (),
    remove: Removals = (),
    label: Names = (),
    detect_every: int = 0,
    max_objects: int = 5,
    batch: int = 1,
    fps: Fraction | float = 24,
    bgr: bool = False,
    **models: Unpack[ModelSettings],
) -> Iterator[FrameMasks]:
    """Masks of a stream of frames, one result per frame, in order, as soon as it is final.

    Everything that can be known before the first frame is checked at the call, and the models are loaded. A prompt
    whose frame never came is a ``UserWarning`` at the end. To say something of objects while frames run:
    :class:`vidseg.Session`.

    Args:
        frames: uint8 RGB arrays (H, W, 3) or PIL images, of one size, or :class:`Frame` objects with growing indices,
            such as those of :func:`vidseg.open_source`.
        prompts: where the objects are; none, and no ``box``, ``point`` and ``mask``: they are found on the first frame
            that shows any.
        box, point, mask: the same as texts of the command line or as numbers, see :func:`segment_video`.
        remove: objects to forget, id to the first frame without it.
        label: names of objects by id, which the results carry.
        detect_every: look for new objects every so many frames; 0: only at the start.
        max_objects: most objects to find.
        batch: frames per HQ-SAM batch; 1 has the least delay.
        fps: rate that gives arrays and images their times.
        bgr: arrays are BGR, as OpenCV has them.
        models: ``tracker``, ``model``, ``refine``, ``zoom``, ``keep_still``, ``detector``, ``device``, ``dtype``,
            ``compile``, ``tracker_options``, ``detector_options`` and ``offline``: the fields of
            :class:`vidseg_pipelines.build.ModelChoice`.

    Raises:
        UsageError: at the call: wrong values, or prompts that do not fit ``frames`` where they are a sequence. Later: a
            frame of another size than the first, or with an index that does not grow; a prompt that does not fit.
        InputError: a mask file cannot be read. WeightsError: weights are missing or wrong.
    """
    for name, count, least in (("batch", batch, 1), ("max_objects", max_objects, 1), ("detect_every", detect_every, 0)):
        check_count(f"segment_frames: {name}", count, least)
    intake, choice = FrameIntake(fps=fps, bgr=bgr), ModelChoice.of("segment_frames", models)
    given = parse_prompts(
        boxes=box_texts(box), points=point_texts(point), masks=mask_texts(mask), prompts=prompts_of(prompts)
    )
    removals, names = parse_removals(removal_texts(remove)), names_by_id(name_texts(label))
    _check_frames(frames, given)
    loaded = choice.load()
    segmenter = Segmenter(
        loaded.tracker,
        loaded.sam,
        loaded.refiner,
        prompts=given,
        removals=removals,
        names=names,
        max_objects=max_objects,
        detector=loaded.detector,
        detect_every=detect_every,
        batch=batch,
    )
    return _results(intake.all(frames), segmenter, UnusedPrompts(given, removals), batch, intake.fps)


def read_run(folder: str | Path) -> Iterator[FrameMasks]:
    """The results of a run, frame by frame; of one that is still going on, those that are there.

    ``folder`` may be a URL of object storage; a run that goes on there shows what it has uploaded.

    Raises:
        InputError: at the call: there is no run. Later: a line of its journal that is no result.
    """
    run = folder_at(folder)
    if not run.has_journal:
        raise InputError(f"{folder}: contains no {JOURNAL}; give the output folder of a run")
    return run.results()


def _part_text(part: slice) -> str:
    """A part of a video as the command line takes it."""
    if part.step not in (None, 1):
        raise UsageError(f"frames {part}: every frame of A <= index < B is taken; leave out the step")
    ends = ("" if end is None else str(check_count("frames", end, 0)) for end in (part.start, part.stop))
    return ":".join(ends)


def _results(
    frames: Iterator[Frame], segmenter: Segmenter, unused: UnusedPrompts, batch: int, fps: Fraction
) -> Iterator[FrameMasks]:
    stream = unused.watch(frames)
    started = False
    while group := list(islice(stream, batch)):
        if not started:
            height, width = group[0].hw
            segmenter.start(VideoInfo(width, height, fps))
            started = True
        yield from (masks for _, masks in segmenter.step(group))
    if started:
        yield from (masks for _, masks in segmenter.finish())
    for text in [*segmenter.doubts, *unused.warnings()]:
        warnings.warn(text, stacklevel=2)


def _check_frames(frames: Iterable[FrameLike], prompts: Sequence[Prompt]) -> None:
    """Check prompts, against the frames too where these are here already."""
    if not isinstance(frames, Iterable) or isinstance(frames, (str, bytes)):
        what = "an iterable of images expected"
        if isinstance(frames, (str, os.PathLike)):
            what += f", such as open_source({str(frames)!r})"
        raise UsageError(f"segment_frames: frames: {what}; got {type(frames).__name__}")
    if isinstance(frames, np.ndarray) and frames.ndim != 4:
        raise UsageError(f"segment_frames: frames: an array (N, H, W, 3) expected, got shape {frames.shape}")
    check_prompts(prompts)
    if not prompts or not isinstance(frames, (Sequence, np.ndarray)) or not len(frames):
        return
    indices = [frame.index if isinstance(frame, Frame) else place for place, frame in enumerate(frames)]
    fit_prompts(prompts, as_frame(frames[0], indices[0], Fraction(1)).hw)
    if missing := {prompt.frame_index for prompt in prompts}.difference(indices):
        raise UsageError(
            f"a prompt is on frame {min(missing)}, but there are {len(indices)} frames, {indices[0]} to {indices[-1]}"
        )
