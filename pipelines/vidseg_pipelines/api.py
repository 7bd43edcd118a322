"""The Python front door: ``segment_frames`` for any iterable of frames, ``segment_video`` for a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.config import RunConfig, from_mapping, load_yaml
from vidseg.errors import UsageError
from vidseg.loading import load_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.prompt_text import check_prompts, fit_prompts
from vidseg.registry import build_detector, build_tracker
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import SegmentAnything
from vidseg.sam.zoom import Zoom
from vidseg.types import Detector, Frame, Prompt, Tracker, VideoInfo
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_output import RunSummary
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.unused import UnusedPrompts


def segment_video(video: str | Path, output: str | Path | None = None, **settings: Any) -> RunSummary:
    """What ``vidseg run`` does, without its progress: results go to the folder ``output`` (default runs/NAME).

    ``settings`` are the fields of :class:`vidseg.config.RunConfig`, e.g. ``tracker="xmem"``, ``box=["10,10,90,80"]``;
    ``config="run.yaml"`` reads a file of them, over which those given here win.

    Raises:
        VidsegError: any error that the command line reports; see :mod:`vidseg.errors`.
    """
    values = {"input": str(video), **({} if output is None else {"output": Path(output)}), **settings}
    if values.get("config") is not None:
        return run_video(load_yaml(RunConfig, Path(values["config"]), **values))
    return run_video(from_mapping(RunConfig, values, where="segment_video"))


def segment_frames(
    frames: Iterable[Frame | npt.NDArray[np.uint8]],
    *,
    prompts: Sequence[Prompt] = (),
    tracker: str | Tracker = "xmem",
    model: str | Path | SegmentAnything = "compact",
    refine: Mode = "auto",
    zoom: Zoom = "auto",
    detector: str | Detector | None = None,
    detect_every: int = 0,
    max_objects: int = 5,
    batch: int = 1,
    fps: Fraction | int = 24,
    device: str = "auto",
    dtype: str = "auto",
    tracker_options: Mapping[str, object] | None = None,
    detector_options: Mapping[str, object] | None = None,
    offline: bool = False,
) -> Iterator[FrameMasks]:
    """Masks of a stream of frames, one result per frame, in order, as soon as it is final.

    Everything that can be known before the first frame is checked at the call, and the models are loaded. A prompt
    whose frame never came is a ``UserWarning`` at the end.

    Args:
        frames: uint8 RGB arrays (H, W, 3) of one size, or :class:`Frame` objects with growing indices, such as those of
            :func:`vidseg.open_source`.
        prompts: where the objects are; none: they are found on the first frame that shows any.
        tracker: name of a registered tracker, or an instance.
        model: name or file of HQ-SAM weights, or an instance.
        refine, zoom: see :class:`vidseg_pipelines.refiner.RefineOptions`.
        detector: what finds objects: name of a registered detector, or an instance; None: HQ-SAM's automatic masks.
        detect_every: look for new objects every so many frames; 0: only at the start.
        max_objects: most objects to find.
        batch: frames per HQ-SAM batch; 1 has the least delay.
        fps: rate that gives plain arrays their times.
        device, dtype: where and how precisely named models run.
        tracker_options, detector_options: settings of a named tracker or detector.
        offline: never use the network: missing weights are an error.

    Raises:
        UsageError: at the call: wrong values, or prompts that do not fit ``frames`` where they are a sequence. Later: a
            frame of another size than the first, or with an index that does not grow; a prompt that does not fit.
        WeightsError: weights are missing or wrong.
    """
    for name, count, least in (("batch", batch, 1), ("max_objects", max_objects, 1), ("detect_every", detect_every, 0)):
        if not isinstance(count, Integral) or isinstance(count, bool) or count < least:
            raise UsageError(f"segment_frames: {name} {count}: a whole number of at least {least} expected")
    rate = _rate(fps)
    _check_frames(frames, prompts)
    for name, given, options in (("tracker", tracker, tracker_options), ("detector", detector, detector_options)):
        if options is not None and not isinstance(given, str):
            raise UsageError(f"segment_frames: {name}_options are for a {name} that is named, not for {given!r}")
    place = resolve_device(device)
    where: dict[str, Any] = {"device": place, "dtype": resolve_dtype(dtype, place), "offline": offline}
    choice = RefineOptions(refine, zoom=zoom)
    sam = load_sam(model, **where) if isinstance(model, (str, Path)) else model
    if isinstance(tracker, str):
        tracker = build_tracker(tracker, tracker_options, **where)
    if isinstance(detector, str):
        detector = build_detector(detector, detector_options, **where)
    segmenter = Segmenter(
        tracker,
        sam,
        Refiner(sam, choice),
        prompts=prompts,
        max_objects=max_objects,
        detector=detector,
        detect_every=detect_every,
        batch=batch,
    )
    return _results(frames, segmenter, UnusedPrompts(prompts), batch, rate)


def _results(
    frames: Iterable[Frame | npt.NDArray[np.uint8]],
    segmenter: Segmenter,
    unused: UnusedPrompts,
    batch: int,
    rate: Fraction,
) -> Iterator[FrameMasks]:
    stream = unused.watch(_checked(_as_frame(item, index, rate) for index, item in enumerate(frames)))
    started = False
    while group := list(islice(stream, batch)):
        if not started:
            height, width = group[0].hw
            segmenter.start(VideoInfo(width, height, rate))
            started = True
        yield from (masks for _, masks in segmenter.step(group))
    if started:
        yield from (masks for _, masks in segmenter.finish())
    for text in [*segmenter.doubts, *unused.warnings()]:
        warnings.warn(text, stacklevel=2)


def _rate(fps: Fraction | int) -> Fraction:
    try:
        rate = Fraction(fps)
    except (TypeError, ValueError, OverflowError):
        rate = Fraction(0)
    if rate <= 0:
        raise UsageError(f"segment_frames: fps {fps}: a number over 0 expected")
    return rate


def _check_frames(frames: Iterable[Frame | npt.NDArray[np.uint8]], prompts: Sequence[Prompt]) -> None:
    """Check prompts, against the frames too where these are here already."""
    if not isinstance(frames, Iterable) or isinstance(frames, (str, bytes)):
        raise UsageError(f"segment_frames: frames: an iterable of images expected, got {type(frames).__name__}")
    if isinstance(frames, np.ndarray) and frames.ndim != 4:
        raise UsageError(f"segment_frames: frames: an array (N, H, W, 3) expected, got shape {frames.shape}")
    check_prompts(prompts)
    if not prompts or not isinstance(frames, (Sequence, np.ndarray)) or not len(frames):
        return
    indices = [frame.index if isinstance(frame, Frame) else place for place, frame in enumerate(frames)]
    fit_prompts(prompts, _as_frame(frames[0], indices[0], Fraction(1)).hw)
    if missing := {prompt.frame_index for prompt in prompts}.difference(indices):
        raise UsageError(
            f"a prompt is on frame {min(missing)}, but there are {len(indices)} frames, {indices[0]} to {indices[-1]}"
        )


def _as_frame(item: Frame | npt.NDArray[np.uint8], index: int, fps: Fraction) -> Frame:
    return item if isinstance(item, Frame) else Frame(index, index, float(index / fps), item)


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    first: Frame | None = None
    last = -1
    for frame in frames:
        first = first or frame
        if frame.index <= last:
            raise UsageError(f"frame {frame.index} comes after frame {last}: indices must grow")
        if frame.hw != first.hw:
            (h, w), (height, width) = frame.hw, first.hw
            raise UsageError(f"frame {frame.index} is {w}x{h}, the first was {width}x{height}: expected one size")
        last = frame.index
        yield frame
