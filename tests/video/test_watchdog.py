"""No call into FFmpeg hangs, sources can be stopped from outside, and nothing is kept after a video."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from media import barcode_frame, barcode_video, read_barcode, write_video
from vidseg.errors import InputError
from vidseg.video import open_source, pictures
from vidseg.video.reader import VideoSource
from vidseg.video.rgb import RgbConverter
from vidseg.video.watchdog import StoppedError, TimeLimitError, Watchdog


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    return path


def test_opening_what_never_answers(pipe):
    with pytest.raises(TimeLimitError, match=r"pipe.mp4: opening it takes longer than 0.3 s \(--read-timeout"):
        open_source(pipe, limit_s=0.3)


def test_a_file_that_stops_in_the_middle(tmp_path, pipe):
    body = barcode_video(tmp_path / "v.ts", 200, options={"g": "10", "tune": "zerolatency"}).read_bytes()
    over = threading.Event()

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(body)
            over.wait()

    threading.Thread(target=write, daemon=True).start()
    source = open_source(pipe, limit_s=3.0)
    codes = []
    with pytest.raises(TimeLimitError, match=r"pipe.mp4: frame \d+ takes longer than 3 s"):
        for frame in source:
            codes.append(read_barcode(frame.rgb))
    over.set()
    assert codes == list(range(len(codes))) and len(codes) > 150


def test_a_decoder_that_hangs(tmp_path, monkeypatch):
    """Between two frames, where no limit of FFmpeg helps; the source is closed when the decoder returns after all."""
    original, over = RgbConverter.convert, threading.Event()
    closed = threading.Event()

    def slow(self: RgbConverter, decoded: object) -> object:
        if self._damage.position == 3:
            over.wait()
        return original(self, decoded)  # type: ignore[arg-type]

    release = VideoSource._release
    monkeypatch.setattr(RgbConverter, "convert", slow)
    monkeypatch.setattr(VideoSource, "_release", lambda self: (release(self), closed.set()))
    source = open_source(barcode_video(tmp_path / "v.mp4", 10), limit_s=2.0)
    with pytest.raises(InputError, match="frame 3 takes longer"):
        list(source)
    assert not closed.is_set()
    over.set()
    assert closed.wait(120)


def test_skipping_frames_is_no_hang(tmp_path, monkeypatch):
    """All frames together take longer than the limit, each one does not."""
    timestamp = VideoSource._timestamp
    monkeypatch.setattr(VideoSource, "_timestamp", lambda self, *a: (time.sleep(0.1), timestamp(self, *a))[1])
    source = open_source(barcode_video(tmp_path / "v.mp4", 40), frames=slice(39, None), limit_s=3.0)
    assert [frame.index for frame in source] == [39]


def test_an_image_that_hangs(tmp_path, monkeypatch):
    for n in range(3):
        Image.fromarray(barcode_frame(n)).save(tmp_path / f"{n}.png")
    over = threading.Event()
    original = pictures.read_page

    monkeypatch.setattr(
        pictures, "read_page", lambda page: over.wait() if page.file.name == "1.png" else original(page)
    )
    source = open_source(tmp_path, limit_s=3.0)
    frames = iter(source)
    assert next(frames).index == 0
    with pytest.raises(TimeLimitError, match=r"1.png takes longer"):
        next(frames)
    over.set()


def test_stop_from_another_thread(tmp_path, pipe):
    holder = threading.Thread(target=lambda: pipe.open("wb").close(), daemon=True)
    source = open_source(barcode_video(tmp_path / "v.mp4", 30))
    frames = iter(source)
    assert [next(frames).index for _ in range(5)] == list(range(5))
    threading.Thread(target=source.stop).start()
    rest = list(frames)
    assert len(rest) < 25 or [f.index for f in rest] == list(range(5, 30))
    holder.start()
    os.close(os.open(pipe, os.O_RDONLY))


def test_errors_and_order_of_calls():
    watchdog = Watchdog(5.0)
    assert watchdog.call(lambda: 3, "x") == 3
    with pytest.raises(ZeroDivisionError):
        watchdog.call(lambda: 1 // 0, "x")
    assert watchdog.call(lambda: 4, "x") == 4
    watchdog.stop()
    with pytest.raises(StoppedError):
        watchdog.call(lambda: 5, "x")
    closed: list[int] = []
    watchdog.close(lambda: closed.append(1))
    watchdog.close(lambda: closed.append(2))
    assert closed == [1]


def test_a_source_that_is_forgotten_ends_its_thread(tmp_path):
    path = barcode_video(tmp_path / "v.mp4", 5)
    others = set(threading.enumerate())  # those of earlier tests may end meanwhile
    sources = [open_source(path) for _ in range(5)]
    threads = set(threading.enumerate()) - others
    assert len(threads) == 5
    next(iter(sources[0]))
    del sources
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


ONE_AFTER_THE_OTHER = """
import gc, sys, threading, psutil
from vidseg.video import open_source

def once(stop_early):
    frames = 0
    for _ in open_source(sys.argv[1]):
        frames += 1
        if stop_early and frames == 35:
            break
    assert frames == (35 if stop_early else 40)
    (image,) = open_source(sys.argv[2])
    assert image.hw == (1080, 1920)
    gc.collect()
    return psutil.Process().memory_info().rss

def handles():
    return threading.active_count(), psutil.Process().num_fds()

for _ in range(3):
    once(stop_early=False)
start, before = once(stop_early=True), handles()
grown = max(once(stop_early=bool(n % 2)) for n in range(6)) - start
print(grown, handles() == before)
"""


def test_memory_is_freed_between_videos(tmp_path):
    """Ten videos of 28 MB of pixels each, in a process of their own: what one of them leaves behind shows."""
    pictures = [barcode_frame(n, 640, 360) for n in range(40)]
    path = write_video(tmp_path / "v.mp4", pictures, options={"preset": "ultrafast"})
    Image.fromarray(barcode_frame(1, 1920, 1080)).save(tmp_path / "image.png")
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, str(path), str(tmp_path / "image.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, same_handles = done.stdout.split()
    assert int(grown) < 50 << 20
    assert same_handles == "True"
