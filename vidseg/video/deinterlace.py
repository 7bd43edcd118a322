"""Interlaced video: one image per frame from two fields, with FFmpeg's filter ``bwdif``."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from vidseg.errors import InputError

FILTER = "bwdif"


def deinterlaced(frames: Iterable[VideoFrame], time_base: Fraction) -> Iterator[VideoFrame]:
    """The same number of frames with the same timestamps, in units of ``time_base``; each frame names its first field.

    Raises:
        InputError: this build of FFmpeg has no such filter.
    """
    if FILTER not in av.filter.filters_available:
        raise InputError(f"--deinterlace: this build of FFmpeg lacks the filter {FILTER}; leave the option out")
    graph: Graph | None = None
    shape: tuple[int, int, str] | None = None
    for frame in frames:
        new = frame.width, frame.height, frame.format.name
        if graph is None or new != shape:
            if graph is not None:
                graph.push(None)
                yield from _pull(graph, time_base)
            graph, shape = _graph(frame, time_base), new
        if frame.pts is not None:
            frame.time_base = time_base
        graph.push(frame)
        yield from _pull(graph, time_base)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, time_base)


def _graph(frame: VideoFrame, time_base: Fraction) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    filtered, sink = graph.add(FILTER, "mode=send_frame:deint=all"), graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    return graph


def _pull(graph: Graph, time_base: Fraction) -> Generator[VideoFrame]:
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if frame.pts is not None and frame.time_base:
            frame.pts = round(frame.pts * frame.time_base / time_base)
            frame.time_base = time_base
        yield frame
