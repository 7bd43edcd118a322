"""The Python front door: ``segment_frames`` for any iterable of frames, ``segment_video`` for a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.config import RunConfig, from_mapping
from vidseg.errors import UsageError
from vidseg.registry import build_tracker
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.build import load_sam
from vidseg.sam.model import Sam
from vidseg.sam.refiner import Mode, RefineOptions, Refiner
from vidseg.sam.zoom import Zoom
from vidseg.types import Frame, FrameMasks, Prompt, Tracker, VideoInfo
from vidseg_pipelines.run import run_video
from vidseg_pipelines.run_output import RunSummary
from vidseg_pipelines.segmenter import Segmenter


def segment_video(video: str | Path, output: str | Path | None = None, **settings: Any) -> RunSummary:
    """What ``vidseg run`` does, without its progress: results go to the folder ``output`` (default runs/NAME).

    ``settings`` are the fields of :class:`vidseg.config.RunConfig`, e.g. ``tracker="xmem"``, ``box=["10,10,90,80"]``.

    Raises:
        VidsegError: any error that the command line reports; see :mod:`vidseg.errors`.
    """
    values = {"input": str(video), **({} if output is None else {"output": Path(output)}), **settings}
    return run_video(from_mapping(RunConfig, values, where="segment_video"))


def segment_frames(
    frames: Iterable[Frame | npt.NDArray[np.uint8]],
    *,
    prompts: Sequence[Prompt] = (),
    tracker: str | Tracker = "xmem",
    model: str | Sam = "compact",
    refine: Mode = "auto",
    zoom: Zoom = "auto",
    max_objects: int = 5,
    batch: int = 1,
    fps: Fraction | int = 24,
    device: str = "auto",
    dtype: str = "auto",
    tracker_options: Mapping[str, object] | None = None,
) -> Iterator[FrameMasks]:
    """Masks of a stream of frames, one result per frame, in order, as soon as it is final.

    Args:
        frames: uint8 RGB arrays (H, W, 3) of one size, or :class:`Frame` objects with growing indices, such as those of
            :func:`vidseg.open_source`.
        prompts: where the objects are; none: they are found on the first frame that shows any.
        tracker: name of a registered tracker, or an instance.
        model: name or file of HQ-SAM weights, or an instance.
        refine, zoom: see :class:`vidseg.sam.refiner.RefineOptions`.
        max_objects: most objects to find without prompts.
        batch: frames per HQ-SAM batch; 1 has the least delay.
        fps: rate that gives plain arrays their times.
        device, dtype: where and how precisely named models run.
        tracker_options: settings of a named tracker.

    Raises:
        UsageError: a number that is not positive; a frame of another size than the first, or with an index that does
            not grow.
    """
    for name, number in (("batch", batch), ("max_objects", max_objects), ("fps", fps)):
        if number <= 0:
            raise UsageError(f"segment_frames: {name} {number}: more than 0 wanted")
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    sam = load_sam(model, device=place, dtype=precision) if isinstance(model, str) else model
    if isinstance(tracker, str):
        tracker = build_tracker(tracker, tracker_options, device=place, dtype=precision)
    refiner = Refiner(sam, RefineOptions(refine, zoom=zoom))
    segmenter = Segmenter(tracker, sam, refiner, prompts=prompts, max_objects=max_objects, batch=batch)
    rate = Fraction(fps)
    stream = _checked(_as_frame(item, index, rate) for index, item in enumerate(frames))
    started = False
    while group := list(islice(stream, batch)):
        if not started:
            height, width = group[0].size
            segmenter.start(VideoInfo(width, height, rate))
            started = True
        yield from (masks for _, masks in segmenter.step(group))
    if started:
        yield from (masks for _, masks in segmenter.finish())


def _as_frame(item: Frame | npt.NDArray[np.uint8], index: int, fps: Fraction) -> Frame:
    return item if isinstance(item, Frame) else Frame(index, index, float(index / fps), item)


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    first: Frame | None = None
    last = -1
    for frame in frames:
        first = first or frame
        if frame.index <= last:
            raise UsageError(f"frame {frame.index} comes after frame {last}: indices must grow")
        if frame.size != first.size:
            (h, w), (height, width) = frame.size, first.size
            raise UsageError(f"frame {frame.index} is {w}x{h}, the first was {width}x{height}: one size wanted")
        last = frame.index
        yield frame
