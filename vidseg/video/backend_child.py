"""The process of :mod:`vidseg.video.backend`: ``python -m vidseg.video.backend_child decord|torchcodec|nvdec FILE``.

Writes messages to standard output, each json after its length (4 bytes, little endian): the number of frames, then for
each frame its size, followed by its pixels. An error is a message too.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt


def _decord(decord: ModuleType, path: str) -> tuple[int, Iterator[npt.NDArray[np.uint8]]]:
    video = decord.VideoReader(path, num_threads=1)
    return len(video), (video.next().asnumpy() for _ in range(len(video)))


def _torchcodec(decoders: ModuleType, path: str) -> tuple[int, Iterator[npt.NDArray[np.uint8]]]:
    video = decoders.VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    return len(video), (video[index].numpy() for index in range(len(video)))


def _nvdec(decoders: ModuleType, path: str) -> tuple[int, Iterator[npt.NDArray[np.uint8]]]:
    """The decoder of an NVIDIA GPU."""
    video = decoders.VideoDecoder(path, dimension_order="NHWC", seek_mode="exact", device="cuda")
    return len(video), (video[index].cpu().numpy() for index in range(len(video)))


READERS = {
    "decord": ("decord", _decord),
    "torchcodec": ("torchcodec.decoders", _torchcodec),
    "nvdec": ("torchcodec.decoders", _nvdec),
}
"""Module to import, whose package has the name of the extra, and how to decode with it."""


def main(reader: str, path: str) -> None:
    """Decode ``path`` to the end, or until nobody reads."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the messages

    def send(message: dict[str, Any], pixels: bytes = b"") -> None:
        data = json.dumps(message).encode()
        channel.write(struct.pack("<I", len(data)) + data)
        channel.write(pixels)
        channel.flush()

    module_name, decode = READERS[reader]
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # native libraries that do not load raise anything
        package = module_name.partition(".")[0]
        reason = f"{package} is not installed or does not load here ({_line(error)})"
        send({"error": f"{reason}; pip install 'vidseg[{package}]', or leave out --reader"})
        return
    try:
        count, frames = decode(module, path)
        send({"frames": count})
        for rgb in frames:
            send({"height": rgb.shape[0], "width": rgb.shape[1]}, np.ascontiguousarray(rgb).tobytes())
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        send({"error": _line(error)})


def _line(error: Exception) -> str:
    """The first line of the message; those of native libraries go on with pages of addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


if __name__ == "__main__":
    main(*sys.argv[1:])
