"""The heap keeps large blocks for the next frame, and no holes for long."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from fractions import Fraction

import pytest

from toys import KeepMasks, frames, tiny_sam
from vidseg import heap
from vidseg.types import VideoInfo
from vidseg_pipelines import streaming
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.segmenter import Segmenter

HOLES = """
import ctypes
from vidseg.heap import share_one_heap, trim_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024

share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = []
for _ in range(1600):  # 100 KB of data and a small block that stays, in turn: no hole reaches the end of the heap
    data, pin = libc.malloc(100_000), libc.malloc(2000)
    ctypes.memset(data, 1, 100_000)
    blocks.append(data)
for data in blocks:
    libc.free(data)
full = resident()
trim_heap()
print(full - resident())
"""


@pytest.mark.skipif(heap._glibc() is None or sys.platform != "linux", reason="another C library")
def test_holes_in_the_heap_are_given_back() -> None:
    result = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(result.stdout) > 100  # of the 152 MB


def keeps_large_blocks() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)


AGAIN = """
import ctypes, resource
from vidseg.heap import share_one_heap

share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
faults = []
for _ in range(10):
    block = libc.malloc(48_000_000)
    ctypes.memset(block, 1, 48_000_000)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[0]) / faults[0])
"""


@pytest.mark.skipif(not keeps_large_blocks(), reason="another C library, or glibc before 2.35")
def test_large_blocks_are_not_mapped_anew_every_time() -> None:
    result = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.5  # page faults of nine uses against those of the first


def test_holes_in_the_heap_are_given_back_every_25_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(heap, "trim_heap", lambda: calls.append(done))
    kept, done = heap.FrameHeap(), 0
    while done < 68:
        done += 4
        kept.did(4)
    assert calls == [28, 52]
    calls.clear()
    list(segment_frames(frames(30), tracker=KeepMasks(), model=tiny_sam(), refine="none", batch=4))
    assert len(calls) == 1


def test_a_stream_trims_the_heap_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(streaming, "trim_heap", lambda: calls.append("trimmed"))
    sam = tiny_sam()
    segmenter = Segmenter(KeepMasks(), sam, Refiner(sam, RefineOptions("none")))
    segmenter.start(VideoInfo(128, 72, Fraction(24)))
    streaming.stream(iter(frames(3)), segmenter, [], batch=4)
    assert calls == ["trimmed"]


def test_imports_are_not_searched_for_garbage() -> None:
    try:
        with pytest.raises(ImportError), heap.without_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > 1000, "later searches leave out what there is"
        gc.disable()
        with heap.without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
