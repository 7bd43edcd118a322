"""Every frame of every container arrives once, with its own index, timestamp and pixels."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import accumulate, cycle, islice
from pathlib import Path

import av
import numpy as np
import pytest

from media import barcode_frame, barcode_video, read_barcode, write_video
from vidseg.errors import InputError, UsageError
from vidseg.video import open_source, probe

COUNT = 40
VARIABLE = [0, *accumulate(islice(cycle([1, 3, 2, 7]), COUNT - 1))]
B_FRAMES = {"bf": "3", "g": "12"}
CASES = {
    # name: (writer keywords, timestamps in seconds relative to the first frame)
    "constant.mp4": ({}, [n / 25 for n in range(COUNT)]),
    "variable.mp4": (
        {"pts": VARIABLE, "time_base": Fraction(1, 90), "options": B_FRAMES},
        [p / 90 for p in VARIABLE],
    ),
    "variable.mkv": ({"pts": VARIABLE, "time_base": Fraction(1, 1000)}, [p / 1000 for p in VARIABLE]),
    "b_frames.ts": ({"options": B_FRAMES}, [n / 25 for n in range(COUNT)]),
    "b_frames.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, [n / 25 for n in range(COUNT)]),
    "fragments.mp4": (
        {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        [n / 25 for n in range(COUNT)],
    ),
    "vp8.webm": ({"codec": "libvpx", "options": {"deadline": "realtime"}}, [n / 25 for n in range(COUNT)]),
    "pictures.gif": ({"codec": "gif", "pix_fmt": "rgb8"}, [n / 25 for n in range(COUNT)]),
    "program.mpg": ({"codec": "mpeg2video"}, [n / 25 for n in range(COUNT)]),
    "raw.y4m": ({"codec": "rawvideo"}, [n / 25 for n in range(COUNT)]),
    "flash.flv": ({"codec": "flv1"}, [n / 25 for n in range(COUNT)]),
    "motion_jpeg.mov": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, [n / 25 for n in range(COUNT)]),
}


@pytest.mark.parametrize("name", CASES)
def test_index_time_and_pixels_of_every_frame(tmp_path, name):
    keywords, times = CASES[name]
    source = open_source(barcode_video(tmp_path / name, COUNT, **keywords))
    frames = list(source)
    assert source.warnings == []
    assert [read_barcode(f.rgb) for f in frames] == list(range(COUNT))
    assert [f.index for f in frames] == list(range(COUNT))
    start = frames[0].time_s
    assert [f.time_s - start for f in frames] == pytest.approx(times, abs=6e-4)  # Matroska rounds to 1 ms
    assert [float(f.pts * source.info.time_base) for f in frames] == pytest.approx([f.time_s for f in frames])
    assert (source.info.width, source.info.height) == (120, 64)
    assert source.info.frame_count in (None, COUNT)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_display_rotation_is_applied(tmp_path, degrees):
    """The stored picture is turned against the display rotation, so that the shown one is upright."""
    upright = [barcode_frame(n) for n in range(5)]
    stored = [np.ascontiguousarray(np.rot90(rgb, -degrees // 90)) for rgb in upright]
    counter_clockwise = degrees if degrees <= 180 else degrees - 360
    path = write_video(tmp_path / "turned.mp4", stored, rotation=counter_clockwise, options={"crf": "5"})
    source = open_source(path)
    assert (source.info.width, source.info.height, source.info.rotation) == (120, 64, 360 - degrees)
    frames = list(source)
    assert [read_barcode(f.rgb) for f in frames] == list(range(5))
    assert np.abs(frames[3].rgb.astype(int) - upright[3]).mean() < 12


def test_mirrored_display_matrix(tmp_path):
    mirrored = np.ascontiguousarray(barcode_frame(5)[:, ::-1])
    path = tmp_path / "mirror.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = mirrored.shape[:2]
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(mirrored, format="rgb24")))
        container.mux(stream.encode(None))
    (frame,) = open_source(path)
    assert read_barcode(frame.rgb) == 5


def test_an_edit_list_cuts_frames_away_without_a_warning(tmp_path):
    path = barcode_video(tmp_path / "cut.mp4", COUNT, pts=[n - 5 for n in range(COUNT)], options=B_FRAMES)
    source = open_source(path)
    frames = list(source)
    assert [read_barcode(f.rgb) for f in frames] == list(range(5, COUNT))
    assert [f.index for f in frames] == list(range(COUNT - 5))
    assert source.info.frame_count == COUNT - 5
    assert source.warnings == []


def test_part_of_the_frames_keeps_their_indices(tmp_path):
    path = barcode_video(tmp_path / "v.mp4", COUNT, options=B_FRAMES)
    whole = list(open_source(path))
    source = open_source(path, frames=slice(7, 12))
    part = list(source)
    assert [f.index for f in part] == [read_barcode(f.rgb) for f in part] == [7, 8, 9, 10, 11]
    assert [f.pts for f in part] == [f.pts for f in whole[7:12]]
    assert all((a.rgb == b.rgb).all() for a, b in zip(part, whole[7:12], strict=True))
    assert source.warnings == []
    assert [f.index for f in open_source(path, frames=slice(38, None))] == [38, 39]
    assert len(list(open_source(path, frames=slice(38, 100)))) == 2


def test_a_file_that_grows_while_it_is_read_is_a_warning(tmp_path):
    path = barcode_video(tmp_path / "v.ts", COUNT)
    source = open_source(path)
    frames = iter(source)
    next(frames)
    with path.open("ab") as file:
        file.write(path.read_bytes()[:1880])
    assert len(list(frames)) >= COUNT - 1
    assert [text.partition(" from")[0] for text in source.warnings if "complete" in text] == ["the file grew"]
    part = open_source(path, frames=slice(0, 3))
    for _ in part:
        with path.open("ab") as file:
            file.write(bytes(188))
    assert part.warnings == []


def test_frames_after_the_end_are_an_error(tmp_path):
    path = barcode_video(tmp_path / "v.mp4", 5)
    with pytest.raises(InputError, match="start at 5, but it has only 5 frames"):
        list(open_source(path, frames=slice(5, 9)))
    for wrong in (slice(-1, 3), slice(4, 4), slice(0, 8, 2)):
        with pytest.raises(UsageError, match="expected"):
            open_source(path, frames=wrong)


def test_colours_follow_the_tagged_matrix(tmp_path):
    """The same RGB stored with the matrices of BT.601 and BT.709 comes back as the same RGB."""
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, :32], rgb[:, 32:] = (220, 40, 30), (20, 200, 60)
    for matrix, name in ((5, "ITU601"), (1, "ITU709")):
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
            stream.height, stream.width = rgb.shape[:2]
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p", dst_colorspace=name)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        (frame,) = open_source(path)
        assert np.abs(frame.rgb[:, 4:28].astype(int) - rgb[:, 4:28]).max() <= 6
        assert np.abs(frame.rgb[:, 36:60].astype(int) - rgb[:, 36:60]).max() <= 6


def test_standard_input(tmp_path):
    path = barcode_video(tmp_path / "v.ts", 12)
    code = "from vidseg.video import open_source; print([f.index for f in open_source('-')])"
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(list(range(12)))


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="nothing on standard input"):
        open_source("-")


def test_a_source_is_read_once(tmp_path):
    source = open_source(barcode_video(tmp_path / "v.mp4", 3))
    list(source)
    with pytest.raises(InputError, match="read once"):
        list(source)


def test_probe(tmp_path):
    info = probe(barcode_video(tmp_path / "clip.one.mp4", 30))
    assert (info.width, info.height, info.fps, info.frame_count, info.codec) == (120, 64, 25, 30, "h264")
    assert info.duration_s == pytest.approx(1.2)
    assert info.name == "clip.one"


def test_names_that_look_like_protocols_are_files(tmp_path, monkeypatch):
    barcode_video(tmp_path / "v.mp4", 3)
    (tmp_path / "v.mp4").rename(tmp_path / "concat:a|b.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("concat:a|b.mp4"))) == 3


def test_decoder_threads_change_nothing(tmp_path):
    path = barcode_video(tmp_path / "v.mp4", COUNT, options=B_FRAMES)
    pairs = zip(open_source(path), open_source(Path(path), threads=4), strict=True)
    assert all(a.pts == b.pts and (a.rgb == b.rgb).all() for a, b in pairs)
