"""An input that cannot be read says why, and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from streams import Loopback, http
from vidseg.errors import InputError
from vidseg.video import open_source

READ_STDIN = """
from vidseg.errors import InputError
from vidseg.video import open_source
try:
    list(open_source("-"))
except InputError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def late_index(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MP4 whose index is at its end, larger than what FFmpeg keeps of a pipe."""
    path: Path = tmp_path_factory.mktemp("late") / "late.mp4"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 4_000_000
        for _ in range(30):
            image = noise.integers(0, 255, (240, 320, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_an_mp4_with_its_index_at_the_end_is_not_read_from_a_pipe(late_index: bytes) -> None:
    told = subprocess.run([sys.executable, "-c", READ_STDIN], input=late_index, capture_output=True, check=True)
    assert b"index at its end cannot be read from a pipe" in told.stdout and b"faststart" in told.stdout


def test_nor_from_a_server_without_ranges(late_index: bytes) -> None:
    answers = [http(late_index, length=len(late_index))] * 4
    with Loopback(*answers) as server, pytest.raises(InputError, match="needs a server that sends ranges"):
        open_source(server.url)


def test_a_web_page_is_no_video(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><html><title>A video</title>" + b"<p>watch</p>" * 500 + b"</html>"
    (tmp_path / "saved.mp4").write_bytes(page)
    with pytest.raises(InputError, match=r"saved.mp4: a web page, not a video: save the video itself"):
        open_source(str(tmp_path / "saved.mp4"))
    with Loopback(*[http(page, length=len(page))] * 4) as server, pytest.raises(InputError, match="a web page, not a"):
        open_source(server.url)
