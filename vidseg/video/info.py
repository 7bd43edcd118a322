"""What is known of a video before it is decoded; its nominal rate is checked against the timestamps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg.types import VideoInfo
from vidseg.video.display_matrix import display_orientation

RATE_PACKETS = 64
"""Packets whose timestamps are compared with the nominal rate."""

PLAUSIBLE_FPS = 240
"""A nominal rate above it is believed only where timestamps bear it out: FFmpeg guesses 1000 where a file has none."""

_UNSORTED = 16  # timestamps at the end of the packets read may lack some between them: H.264 reorders up to 16 frames
_PAUSE = 3  # a step of more than so many usual ones is a pause
_TOLERANCE = Fraction(6, 5)
_DENOMINATOR = 1001
_UNKNOWN = Fraction(25)


def video_info(
    name: str, container: InputContainer, stream: VideoStream, first: VideoFrame, **read_as: Any
) -> VideoInfo:
    """What is known once the first frame is decoded; ``read_as`` are the fields that it does not tell."""
    orientation = display_orientation(first)
    width, height = first.width, first.height
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if orientation.transpose:
        width, height, aspect = height, width, 1 / aspect
    return VideoInfo(
        width,
        height,
        frame_count=frame_count(stream),
        frames_are_listed=frames_are_listed(container, stream),
        duration_s=duration(container, stream),
        rotation=orientation.degrees,
        mirrored=orientation.mirrored,
        codec=stream.codec_context.name,
        name=name,
        time_base=stream.time_base,
        stream=stream.index,
        pixel_aspect=aspect,
        **read_as,
    )


def frame_count(stream: VideoStream) -> int | None:
    """Frames that the container names, less those that its edit list cuts away; None where it names none."""
    if not stream.frames:
        return None
    return stream.frames - sum(entry.is_discard for entry in stream.index_entries)


def frames_are_listed(container: InputContainer, stream: VideoStream) -> bool:
    """Does the container list every frame? MP4 and QuickTime do, unless they come in fragments."""
    return "mov" in container.format.name.split(",") and 0 < stream.frames == len(stream.index_entries)


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of the video stream; the container's own length counts only when the video is alone in it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska: 00:00:05.280000000
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        alone = len(container.streams) == 1 and container.duration
        return container.duration / av.time_base if alone and container.duration else None


def nominal_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second as FFmpeg names or guesses them."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((Fraction(rate) for rate in rates if rate is not None and rate > 0), None)


def frame_rate(stream: VideoStream, times: Sequence[int], *, interlaced: bool = False) -> Fraction:
    """Frames per second.

    It is the nominal rate where the first timestamps agree with it, or the whole length does (a variable rate); else
    the rate of the timestamps.

    Args:
        stream: the video.
        times: timestamps of its first packets, in units of the stream, in any order; none: they are not known.
        interlaced: each of the two fields of a frame may have a packet of its own.
    """
    nominal, measured = nominal_rate(stream), _measured(times, stream.time_base)
    if measured is None:
        return nominal if nominal is not None and nominal <= PLAUSIBLE_FPS else _UNKNOWN
    if nominal is None:
        return measured
    if _agree(measured, nominal) or (interlaced and _agree(measured, 2 * nominal)):
        return nominal
    if stream.frames and stream.duration and stream.time_base:
        whole = stream.frames / (stream.duration * stream.time_base)
        return nominal if _agree(whole, nominal) else measured
    return measured


def _measured(times: Sequence[int], time_base: Fraction | None) -> Fraction | None:
    """The rate that the steps between timestamps make, pauses left out."""
    in_order = sorted(set(times))
    if len(in_order) > 2 * _UNSORTED:
        in_order = in_order[:-_UNSORTED]
    steps = [later - earlier for earlier, later in pairwise(in_order)]
    if not steps or not time_base:
        return None
    longest = _PAUSE * statistics.median(steps)
    usual = [step for step in steps if step <= longest]
    seconds = Fraction(sum(usual), len(usual)) * time_base
    if seconds > 1:
        return 1 / seconds.limit_denominator(_DENOMINATOR)
    return (1 / seconds).limit_denominator(_DENOMINATOR)


def _agree(a: Fraction, b: Fraction) -> bool:
    return b / _TOLERANCE <= a <= b * _TOLERANCE
