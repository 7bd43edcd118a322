"""The overlay's file: timestamps, sizes, colours, and what is left after a kill or on a full disk."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from media import barcode_frame, barcode_video, file_size_limit, read_barcode
from vidseg.errors import OutputError
from vidseg.video import VideoWriter, open_source


@pytest.mark.parametrize("time_base", [Fraction(1, 90_000), Fraction(1001, 24_000), Fraction(1, 1000)])
def test_timestamps_survive_exactly(tmp_path, time_base):
    pts = [7, 8, 11, 20, 21, 50, 51]
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64, fps=Fraction(25), time_base=time_base)
    for number, value in enumerate(pts):
        writer.write(barcode_frame(number), value)
    writer.close()
    writer.close()
    source = open_source(tmp_path / "o.mp4")
    frames = list(source)
    assert [f.pts * source.info.time_base for f in frames] == [p * time_base for p in pts]
    assert [read_barcode(f.rgb) for f in frames] == list(range(len(pts)))
    assert source.warnings == []
    assert not list(tmp_path.glob("*.part"))


def test_a_real_source_with_variable_rate(tmp_path):
    pts = [0, 1, 5, 6, 20, 22, 23, 40]
    path = barcode_video(tmp_path / "v.mp4", 8, pts=pts, time_base=Fraction(1, 90), options={"bf": "2"})
    source = open_source(path)
    frames = list(source)
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64, fps=source.info.fps, time_base=source.info.time_base)
    for frame in frames:
        writer.write(frame.rgb, frame.pts)
    writer.close()
    copy = open_source(tmp_path / "o.mp4")
    assert [f.time_s for f in copy] == pytest.approx([f.time_s for f in frames], abs=1e-9)


def test_timestamps_that_do_not_grow_are_moved(tmp_path):
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64, time_base=Fraction(1, 1000))
    for number, pts in enumerate([0, 40, 40, 30, 80]):
        writer.write(barcode_frame(number), pts)
    writer.close()
    assert [round(f.time_s * 1000) for f in open_source(tmp_path / "o.mp4")] == [0, 40, 41, 42, 80]


def test_odd_sizes_are_padded_by_one(tmp_path):
    rgb = barcode_frame(9, 121, 65)
    writer = VideoWriter(tmp_path / "o.mp4", 121, 65, crf=1)
    writer.write(rgb, 0)
    writer.close()
    (frame,) = open_source(tmp_path / "o.mp4")
    assert frame.rgb.shape == (66, 122, 3)
    assert (np.abs(frame.rgb[:65, :121].astype(int) - rgb) < 60).mean() > 0.95


def test_colours_are_kept(tmp_path):
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:64], rgb[:, 64:] = (220, 30, 30), (30, 200, 40), (40, 60, 210)
    writer = VideoWriter(tmp_path / "o.mp4", 96, 64, crf=1)
    writer.write(rgb, 0)
    writer.close()
    (frame,) = open_source(tmp_path / "o.mp4")
    for left in (0, 32, 64):
        block = slice(left + 6, left + 26)
        assert np.abs(frame.rgb[:, block].astype(int) - rgb[:, block]).max() <= 6


def test_an_unfinished_file_plays_up_to_the_last_fragment(tmp_path):
    """What a kill leaves: nothing is closed, the bytes in the file are read as they are."""
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64, fps=Fraction(10), time_base=Fraction(1, 10))
    left = tmp_path / "left.mp4"
    left.write_bytes((tmp_path / "o.mp4").read_bytes())
    assert b"moov" in left.read_bytes()  # the header is there before the first frame
    for number in range(35):
        writer.write(barcode_frame(number), number)
    left.write_bytes((tmp_path / "o.mp4").read_bytes())
    codes = [read_barcode(f.rgb) for f in open_source(left)]
    assert 20 <= len(codes) <= 35
    assert codes == list(range(len(codes)))
    writer.close()
    assert len(list(open_source(tmp_path / "o.mp4"))) == 35


def test_errors_are_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"missing/o\.mp4: cannot write the video"):
        VideoWriter(tmp_path / "missing" / "o.mp4", 120, 64)
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64)
    with pytest.raises(OutputError, match="frame of 60x64"):
        writer.write(barcode_frame(0, 60, 64), 0)
    writer.close()


def test_a_full_disk_is_an_error_and_leaves_a_playable_file(tmp_path):
    writer = VideoWriter(tmp_path / "o.mp4", 120, 64, fps=Fraction(5), time_base=Fraction(1, 5))
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 120, 3), np.uint8)
    with file_size_limit(60_000), pytest.raises(OutputError, match="cannot write the video"):
        for number in range(200):
            writer.write(noise[number], number)
        writer.close()
    count = len(list(open_source(tmp_path / "o.mp4")))
    assert count >= 1
    writer.close()
