"""decord and torchcodec in a process of their own: they must agree with PyAV, and cannot hang or crash a run.

The packages may not be installed, and their failures cannot be ordered: a stand-in for torchcodec plays them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from media import barcode_video, read_barcode
from vidseg.errors import InputError
from vidseg.video import open_source

COUNT = 24
STAND_IN = """
import os, signal, sys, time
import av, numpy

class _Tensor:
    def __init__(self, array, device): self.array, self.device = array, device
    def cpu(self): return _Tensor(self.array, "cpu")
    def numpy(self):
        if self.device != "cpu": raise TypeError("can't convert a tensor of a GPU to numpy")
        return self.array

class VideoDecoder:
    def __init__(self, path, *, dimension_order, seek_mode, num_ffmpeg_threads=None, device="cpu"):
        assert os.path.isabs(path) and (dimension_order, seek_mode) == ("NHWC", "exact")
        self.device = device
        self.how = os.environ.get("HOW", "")
        print("noise on standard output")
        with av.open(path) as container:
            self.frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        if self.how == "loses": del self.frames[-1]
        if self.how == "no gpu" and device == "cuda": raise RuntimeError("no CUDA-capable device is detected")
        if self.how == "fails": raise RuntimeError("no such codec\\n  at 0x1234\\n")
        if self.how == "repeats": self.frames = [self.frames[-1]] * len(self.frames)
        if self.how == "turns": self.frames = [numpy.rot90(f) for f in self.frames]
    def __len__(self): return len(self.frames)
    def __getitem__(self, index):
        if self.how == "hangs" and index == 5: time.sleep(1000)
        if self.how == "crashes" and index == 5: os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "breaks" and index == 5: raise ValueError("broken frame")
        return _Tensor(self.frames[index], self.device)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "packages" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    return package


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    times = [n * n + 3 * n for n in range(COUNT)]
    return barcode_video(tmp_path_factory.mktemp("clip") / "clip.mp4", COUNT, pts=times, options={"bf": "2"})


def check_same(path: Path, reader: str) -> None:
    plain, other = list(open_source(path)), list(open_source(path, reader=reader))  # type: ignore[arg-type]
    assert [(f.index, f.pts, f.time_s) for f in other] == [(f.index, f.pts, f.time_s) for f in plain]
    assert [read_barcode(f.rgb) for f in other] == list(range(len(plain)))
    assert max(np.abs(a.rgb.astype(int) - b.rgb).mean() for a, b in zip(plain, other, strict=True)) < 8


def test_frames_and_times_are_those_of_pyav(clip, stand_in):
    check_same(clip, "torchcodec")
    part = list(open_source(clip, reader="torchcodec", frames=slice(7, 9)))
    assert [f.index for f in part] == [read_barcode(f.rgb) for f in part] == [7, 8]
    assert all(a.pts < b.pts for a, b in pairwise(part))


def test_the_decoder_of_a_gpu_gives_the_same_frames(clip, stand_in, monkeypatch):
    check_same(clip, "nvdec")
    monkeypatch.setenv("HOW", "no gpu")
    with pytest.raises(InputError, match=r"opening it with nvdec: no CUDA-capable device is detected$"):
        open_source(clip, reader="nvdec")
    (stand_in / "decoders.py").write_text("raise OSError('no libavutil')")
    with pytest.raises(InputError, match=r"torchcodec is not installed or .* pip install 'vidseg\[torchcodec\]'"):
        open_source(clip, reader="nvdec")


def test_containers_without_timestamps(tmp_path, stand_in):
    path = barcode_video(tmp_path / "v.avi", COUNT, codec="mpeg4", options={"bf": "2"})
    check_same(path, "torchcodec")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("loses", "torchcodec finds 23 frames, PyAV 24: leave out --reader"),
        ("fails", "opening it with torchcodec: no such codec$"),
        ("repeats", "torchcodec, frame 0: the first image differs from PyAV's"),
        ("turns", "torchcodec, frame 0: is 64x120, PyAV reads 120x64"),
        ("hangs", "torchcodec, frame 5 takes longer than 9 s"),
        ("crashes", r"the process of torchcodec ended \(code -11\)"),
        ("breaks", "torchcodec, frame 5: broken frame"),
    ],
)
def test_every_failure_is_one_clear_line(clip, stand_in, monkeypatch, how, message):
    monkeypatch.setenv("HOW", how)
    with pytest.raises(InputError, match=message) as caught:
        list(open_source(clip, reader="torchcodec", limit_s=9.0 if how == "hangs" else 300.0))
    assert str(caught.value).startswith(str(clip))
    assert "\n" not in str(caught.value)


def test_a_package_that_does_not_load_says_so(clip, stand_in):
    (stand_in / "decoders.py").write_text("raise OSError('could not load libavutil.so.59\\n  and more')")
    with pytest.raises(InputError, match=r"torchcodec is not installed or does not load here \(could not load libav"):
        open_source(clip, reader="torchcodec")


def test_what_pyav_refuses_never_reaches_the_other(tmp_path, stand_in):
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'x.mp4'\n")
    with pytest.raises(InputError, match="a playlist"):
        open_source(tmp_path / "list.mp4", reader="torchcodec")


def test_an_unfinished_reader_leaves_no_process(clip, stand_in):
    source = open_source(clip, reader="torchcodec")
    frames = iter(source)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert source._child.poll() is not None  # type: ignore[attr-defined]


def skip_unless_it_loads(package: str) -> None:
    """A package may be there and its libraries not: that takes a process of its own, which it may bring down."""
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{package} does not load here: {done.stderr.strip().splitlines()[-1:]}")


@pytest.mark.extras
def test_decord(tmp_path, clip):
    skip_unless_it_loads("decord")
    check_same(clip, "decord")
    cut = barcode_video(tmp_path / "cut.mp4", COUNT, pts=[n - 5 for n in range(COUNT)], options={"bf": "3"})
    with pytest.raises(InputError, match="decord finds 24 frames, PyAV 19"):
        open_source(cut, reader="decord")
    lost = barcode_video(tmp_path / "lost.ts", 40, options={"bf": "3", "g": "12"})
    with pytest.raises(InputError, match="the first image differs"):
        list(open_source(lost, reader="decord"))


@pytest.mark.extras
def test_torchcodec(clip):
    skip_unless_it_loads("torchcodec.decoders")
    check_same(clip, "torchcodec")
