"""Damaged, disguised and oversized inputs: one clear error or warnings, never a crash, a hang or a wrong frame."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from media import barcode_frame, barcode_video, read_barcode, write_video
from vidseg.errors import InputError
from vidseg.video import open_source, probe
from vidseg.video.damage import Damage

COUNT = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Header first, so that a cut end leaves a readable file; a key frame every ten frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return barcode_video(path, COUNT, options={"g": "10"}, container_options={"movflags": "faststart"})


def read(path: Path) -> tuple[list[int], list[str]]:
    source = open_source(path)
    frames = list(source)
    assert [f.index for f in frames] == list(range(len(frames)))
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    return [read_barcode(f.rgb) for f in frames], source.warnings


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"this is not a video\n" * 50, "not a video that can be read"),
        ("empty.mp4", b"", "the file is empty"),
        ("list.mp4", b"ffconcat version 1.0\nfile 'clip.mp4'\n", "a playlist"),
        ("hls.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n", "a playlist"),
        ("page.mp4", b"<html></html>" * 20, "a web page, not a video"),
        ("subtitles.mp4", b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 9, "not a video that can be read"),
        ("noise.mp4", bytes(np.random.default_rng(1).integers(0, 256, 5000, np.uint8)), "not a video that can be read"),
    ],
)
def test_no_video_is_one_clear_line(tmp_path, clip, name, content, message):
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())  # what a playlist could reach
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file():
    with pytest.raises(InputError, match="no such file"):
        open_source("nowhere/video.mp4")


def test_sound_without_pictures(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video in it"):
        open_source(tmp_path / "sound.mp4")


@pytest.mark.parametrize("share", [0.35, 0.7, 0.95])
def test_truncated_file_gives_its_beginning_and_says_so(tmp_path, clip, share):
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * share)])
    codes, warnings = read(path)
    assert 0 < len(codes) < COUNT
    assert codes[:-1] == list(range(len(codes) - 1))  # the very last one may be half a picture
    assert any(f"truncated: the container names {COUNT} frames" in w for w in warnings)


def test_truncated_matroska_is_noticed_by_its_duration(tmp_path):
    data = barcode_video(tmp_path / "whole.mkv", COUNT, options={"g": "10"}).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    codes, warnings = read(tmp_path / "cut.mkv")
    assert 0 < len(codes) < COUNT
    assert any("truncated: the container names 2.40 s" in w for w in warnings)


def test_a_header_at_the_end_that_is_gone(tmp_path):
    data = barcode_video(tmp_path / "v.mp4", 10).read_bytes()
    for end in (data.index(b"moov") - 4, data.index(b"stsd") + 10):
        (tmp_path / "cut.mp4").write_bytes(data[:end])
        with pytest.raises(InputError, match="damaged"):
            open_source(tmp_path / "cut.mp4")


@pytest.mark.parametrize(
    ("step", "message"), [(3, "damaged packets were skipped"), (53, "damaged frames were repaired by the decoder")]
)
def test_changed_bytes_are_reported_and_later_frames_are_right(tmp_path, clip, step, message):
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat")
    middle = start + (len(data) - start) // 2
    for place in range(middle, middle + 200, step):
        data[place] ^= 0x10
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    codes, warnings = read(path)
    assert codes[:20] == list(range(20))
    assert codes[-10:] == list(range(COUNT - 10, COUNT))
    assert any(f"{message} (near frame 2" in w for w in warnings)


def test_transport_stream_with_lost_packets(tmp_path):
    data = barcode_video(tmp_path / "whole.ts", COUNT, options={"g": "10"}).read_bytes()
    packets = [data[k : k + 188] for k in range(0, len(data), 188)]
    lost = packets[: len(packets) // 2] + packets[len(packets) // 2 + 6 :]
    (tmp_path / "lost.ts").write_bytes(b"".join(lost))
    codes, warnings = read(tmp_path / "lost.ts")
    assert codes[:20] == list(range(20))
    assert codes[-10:] == list(range(COUNT - 10, COUNT))
    assert any("damaged" in w for w in warnings)


def test_one_warning_line_per_kind_of_damage(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 100
    for place in range(start, len(data), 40):
        data[place] ^= 0xFF
    (tmp_path / "ruin.mp4").write_bytes(data)
    try:
        _, warnings = read(tmp_path / "ruin.mp4")
    except InputError:
        return
    assert 1 <= len(warnings) <= 4
    assert all(len(w) < 200 for w in warnings)


def test_pixel_limit_before_any_frame(tmp_path, clip):
    with pytest.raises(InputError, match="120x64 is larger than the limit of 7000 pixels; --max-pixels 7680 reads it"):
        probe(clip, pixel_limit=7000)


def test_a_size_change_ends_the_video(tmp_path):
    small = write_video(tmp_path / "a.h264", [barcode_frame(n) for n in range(6)]).read_bytes()
    large = write_video(tmp_path / "b.h264", [barcode_frame(n, 240, 128) for n in range(6)]).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    codes, warnings = read(path)
    assert codes == list(range(6))
    assert any("the size changes from 120x64 to 240x128" in w for w in warnings)


def test_a_hidden_larger_size_stays_under_the_limit(tmp_path):
    """The header is small, a later parameter set is not: the decoder refuses it before it takes memory."""
    small = write_video(tmp_path / "a.h264", [barcode_frame(n) for n in range(6)]).read_bytes()
    large = write_video(tmp_path / "b.h264", [barcode_frame(n, 480, 256) for n in range(6)]).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    source = open_source(path, pixel_limit=20_000)
    frames = list(source)
    assert len(frames) == 6
    assert any("could not" in w or "damaged" in w for w in source.warnings)


def test_colour_tags_that_cannot_be_converted_are_set_aside(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = 64, 120
        stream.codec_context.colorspace = 14  # ICtCp
        picture = av.VideoFrame.from_ndarray(barcode_frame(5), format="rgb24").reformat(format="yuv420p")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    codes, warnings = read(path)
    assert codes == [5]
    assert any("colour tags that were ignored" in w for w in warnings)


def test_the_lines_of_endless_damage_have_an_end():
    lines: list[str] = []
    damage = Damage(lines)
    for number in range(10_000):
        damage.add(f"packets failed at {number}", place=str(number))
    assert len(lines) < 50 and sum(int(line.split()[0]) for line in lines) == 10_000
