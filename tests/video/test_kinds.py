"""Videos as people have them: odd rates, several streams, two fields, deep grey, HDR, alpha, wide pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from media import barcode_frame, barcode_video, read_barcode, write_video
from toys import KeepMasks, tiny_sam
from vidseg.errors import InputError, UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs import OverlaySink
from vidseg.video import info, open_source, probe
from vidseg_pipelines import build
from vidseg_pipelines.cli import main

MILLISECONDS = Fraction(1, 1000)


def nothing(index: int, pts: int) -> FrameMasks:
    return FrameMasks(index, pts, 0.0, (), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), ())


def overlay_of(video: Path) -> Path:
    source, path = open_source(video), video.with_name("overlay.mp4")
    sink = OverlaySink(path, source.info)
    for frame in source:
        sink.write(frame, nothing(frame.index, frame.pts))
    sink.close()
    return path


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_source_is_closed_by_a_with_block_and_is_read_once(tmp_path: Path, kind: str) -> None:
    path = barcode_video(tmp_path / "clip.mp4", 3) if kind == "video" else tmp_path / "*.png"
    for name in "abc":
        Image.new("RGB", (64, 48)).save(tmp_path / f"{name}.png")
    with open_source(path) as source:
        pass
    read = open_source(path)
    assert len(list(read)) == 3
    for used in (source, read):
        with pytest.raises(InputError, match="a source is read once, before it is closed; open it again"):
            list(used)


def browser_video(path: Path, count: int = 100) -> Path:
    """WebM as MediaRecorder writes it: timestamps in milliseconds, no rate."""
    pts = [33 * k + k % 3 for k in range(count)]
    return barcode_video(
        path, count, codec="libvpx", fps=1000, pts=pts, time_base=MILLISECONDS, container_options={"live": "1"}
    )


def test_a_rate_that_only_ffmpeg_guesses_is_measured(tmp_path: Path) -> None:
    video = browser_video(tmp_path / "browser.webm")
    assert 29.4 < probe(video).fps < 30.4
    overlay = overlay_of(video)
    assert overlay.read_bytes().count(b"moof") == 4  # one per second of 3.3
    with av.open(str(overlay)) as container:
        keys = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.is_keyframe]
    assert keys == pytest.approx([0, 1, 2, 3], abs=0.1)


def test_a_guessed_rate_of_a_pipe_is_measured_too(tmp_path: Path) -> None:
    code = "from vidseg.video import open_source; s = open_source('-'); print(float(s.info.fps), len(list(s)))"
    with browser_video(tmp_path / "browser.webm").open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    fps, count = done.stdout.split()
    assert 29.4 < float(fps) < 30.4 and count == "100"


def test_a_high_speed_camera_keeps_its_rate(tmp_path: Path) -> None:
    pts = [45 * k for k in range(12)]
    video = barcode_video(tmp_path / "fast.mp4", 12, fps=2000, pts=pts, time_base=Fraction(1, 90_000))
    assert probe(video).fps == 2000
    with av.open(str(overlay_of(video))) as container:
        assert container.duration == pytest.approx(6000, abs=100)  # microseconds


@pytest.mark.parametrize(
    ("name", "nominal", "steps", "fps"),
    [
        ("half.mkv", 30, [66, 67, 67], 15),  # a camera in the dark: it says 30
        ("ntsc.mkv", 24, [42, 42, 41], 24),
        ("pauses.mkv", 25, [40, 40, 40, 40, 2000], 25),
        ("pulldown.mkv", 24, [33, 50], 24),
        ("lapse.mkv", 25, [60_000], Fraction(1, 60)),
        ("start.mp4", 25, [20] * 70 + [80] * 70, 20),  # the whole length bears the nominal rate out
    ],
)
def test_a_nominal_rate_is_compared_with_the_timestamps(
    tmp_path: Path, name: str, nominal: int, steps: list[int], fps: Fraction
) -> None:
    count = 140 if len(steps) > 100 else 40
    pts = [sum((steps * count)[:k]) for k in range(count)]
    video = barcode_video(tmp_path / name, count, fps=nominal, pts=pts, time_base=MILLISECONDS)
    assert float(probe(video).fps) == pytest.approx(float(fps), rel=0.03)


def test_a_rate_without_timestamps_is_believed_only_when_it_can_be() -> None:
    class Stream:
        guessed_rate = base_rate = None
        time_base = MILLISECONDS

        def __init__(self, rate: int | None) -> None:
            self.average_rate = rate

    for rate, result in ((60, 60), (1000, 25), (None, 25)):
        assert info.frame_rate(Stream(rate), []) == result  # type: ignore[arg-type]


def two_streams(path: Path, marks: Sequence[bool] = (True, True)) -> Path:
    """Streams 0, 64x48 and white, and 1, with bar codes; ``marks`` are those for default streams."""
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), mark in zip(((64, 48), (120, 64)), marks, strict=True):
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default if mark else Disposition(0)
            streams.append(stream)
        for number in range(3):
            for stream, rgb in zip(streams, (np.full((48, 64, 3), 255, np.uint8), barcode_frame(number)), strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def test_the_largest_default_stream_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    source = open_source(two_streams(tmp_path / "two.mkv"))
    assert [read_barcode(frame.rgb) for frame in source] == [0, 1, 2]
    assert source.notes == ["2 video streams: #1 120x64 is used, not #0 64x48 (--stream N chooses)"]
    assert source.info.stream == 1 and source.warnings == []
    marked = open_source(two_streams(tmp_path / "marked.mkv", (True, False)))
    assert (marked.info.stream, marked.info.width) == (0, 64)
    named = open_source(tmp_path / "two.mkv", stream=0)
    assert [frame.rgb.min() > 240 for frame in named] == [True] * 3
    assert probe(barcode_video(tmp_path / "one.mkv", 2)).stream == 0
    for number in (2, 7):
        with pytest.raises(UsageError, match=rf"--stream {number}: .* has the video streams #0 64x48, #1 120x64"):
            open_source(tmp_path / "two.mkv", stream=number)


def test_a_run_names_its_stream_filter_and_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    video = two_streams(tmp_path / "two.mkv")
    command = ["run", str(video), "--box", "5,5,40,40", "--save", "none", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["video"]["stream"] == 1 and manifest["video"]["deinterlaced"] == ""
    assert "#1 120x64 is used, not #0 64x48" in manifest["notes"][0]
    assert "note: 2 video streams" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--stream", "0", "--deinterlace"]) == 0
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (manifest["video"]["stream"], manifest["video"]["width"]) == (0, 64)
    assert manifest["video"]["deinterlaced"] == "bwdif" and manifest["config"]["stream"] == 0
    assert main(["export", str(tmp_path / "out"), "--to", "overlay"]) == 0
    assert probe(tmp_path / "out" / "overlay.mp4").width == 64  # of the same stream
    assert main([*command, "--overwrite", "--max-pixels", "5000"]) == 3
    assert "120x64 is larger than the limit of 5000 pixels; --max-pixels 7680 reads it" in capsys.readouterr().err
    assert main([*command, "--max-pixels", "999999999"]) == 2


def combs(rgb: np.ndarray) -> float:
    """How much neighbouring lines differ beyond what their next but one neighbours do."""
    lines = rgb.astype(np.int32)
    return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())


def interlaced_video(path: Path, count: int = 8, marks: str = "interlaced=1:tff=1", **keywords: object) -> Path:
    """Field 2k of a moving bar in the even lines of frame k, field 2k + 1 in the odd ones."""

    def field(time: int) -> np.ndarray:
        rgb = np.full((64, 120, 3), 40, np.uint8)
        rgb[:, 8 + 6 * time : 24 + 6 * time] = 220
        return rgb

    frames = []
    for k in range(count):
        frame = field(2 * k)
        frame[1::2] = field(2 * k + 1)[1::2]
        frames.append(frame)
    return write_video(path, frames, options={"x264-params": marks, "crf": "10"}, **keywords)  # type: ignore[arg-type]


def test_interlaced_video_says_so_and_is_deinterlaced_on_request(tmp_path: Path) -> None:
    pts = [0, 1, 2, 4, 5, 6, 9, 10]
    video = interlaced_video(tmp_path / "i.mp4", pts=pts, rotation=90)
    plain, joined = open_source(video), open_source(video, deinterlace=True)
    assert len(plain.notes) == 1 and "interlaced" in plain.notes[0] and "--deinterlace" in plain.notes[0]
    assert joined.notes == [] and joined.info.deinterlaced == "bwdif"
    before, after = list(plain), list(joined)
    assert [(f.index, f.pts) for f in after] == [(f.index, f.pts) for f in before]
    assert all(f.rgb.shape == (120, 64, 3) for f in after)
    assert combs(np.rot90(after[4].rgb)) < 0.2 * combs(np.rot90(before[4].rgb))
    assert open_source(barcode_video(tmp_path / "progressive.mp4", 3)).notes == []
    assert [f.index for f in open_source(video, deinterlace=True, frames=slice(3, 6))] == [3, 4, 5]


def test_interlaced_video_without_a_mark_is_deinterlaced_too(tmp_path: Path) -> None:
    video = interlaced_video(tmp_path / "i.mp4", marks="bframes=0")
    plain = open_source(video)
    before, after = list(plain), list(open_source(video, deinterlace=True))
    assert plain.notes == [] and combs(after[4].rgb) < 0.2 * combs(before[4].rgb)


def test_a_build_without_the_filter_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av.filter, "filters_available", set())
    with pytest.raises(InputError, match="--deinterlace: this build of FFmpeg lacks the filter bwdif"):
        list(open_source(barcode_video(tmp_path / "v.mp4", 3), deinterlace=True))


@pytest.mark.parametrize("option", [{"stream": 0}, {"deinterlace": True}])
def test_options_of_videos_are_refused_elsewhere(tmp_path: Path, option: dict[str, object]) -> None:
    (tmp_path / "frames").mkdir()
    Image.fromarray(barcode_frame(0)).save(tmp_path / "frames" / "0.png")
    with pytest.raises(UsageError, match="is for videos"):
        open_source(tmp_path / "frames", **option)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--reader decord cannot be combined"):
        open_source(barcode_video(tmp_path / "v.mp4", 3), reader="decord", **option)  # type: ignore[arg-type]


def raw_video(path: Path, frames: Sequence[np.ndarray], pix_fmt: str, codec: str = "ffv1", **settings: object) -> Path:
    """Video of frames that are in its pixel format, or RGB; ``settings`` are those of the codec context."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context: VideoCodecContext = stream.codec_context
        for name, value in settings.items():
            setattr(context, name, value)
        for values in frames:
            own = "rgb24" if values.dtype == np.uint8 else pix_fmt
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, own)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("pix_fmt", "settings"),
    [
        ("yuv420p10le", {}),
        ("yuv420p10le", {"color_trc": 16, "color_primaries": 9, "colorspace": 9}),  # HDR10
        ("gray", {}),
        ("gray10le", {}),
        ("yuva420p", {}),
        ("gbrp16le", {}),
        ("yuv420p", {"codec": "libx264", "sample_aspect_ratio": Fraction(16, 11)}),
    ],
    ids=["10bit", "hdr", "grey", "grey10", "alpha", "rgb16", "aspect"],
)
def test_pixels_of_every_kind_are_read(tmp_path: Path, pix_fmt: str, settings: dict[str, object]) -> None:
    video = raw_video(tmp_path / "v.mkv", [barcode_frame(n) for n in (5, 700)], pix_fmt, **settings)  # type: ignore[arg-type]
    source = open_source(video)
    frames = list(source)
    assert [read_barcode(f.rgb) for f in frames] == [5, 700]
    assert abs(int(frames[0].rgb[10, 5].mean()) - 228) < 12  # a white bar keeps its brightness
    aspect = settings.get("sample_aspect_ratio", 1)
    assert source.info.pixel_aspect == aspect and source.warnings == source.notes == []
    assert probe(overlay_of(video)).pixel_aspect == aspect


def test_a_turned_video_has_its_pixels_turned_too(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "t.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 120, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(barcode_frame(1), "rgb24")))
        container.mux(stream.encode(None))
    seen = probe(tmp_path / "t.mp4")
    assert (seen.width, seen.height, seen.pixel_aspect) == (64, 120, Fraction(3, 4))


@pytest.mark.parametrize("pix_fmt", ["gray16le", "gray12le", "rgb48le"])
@pytest.mark.parametrize("suffix", [".mkv", ".nut"])  # .nut cannot be searched: its first frames tell the range
def test_ten_bits_in_a_deeper_video_are_as_bright_as_eight(tmp_path: Path, pix_fmt: str, suffix: str) -> None:
    eight = [barcode_frame(n)[..., 0] for n in range(20)]
    dark = [np.zeros_like(eight[0])] * 4
    deep = [values.astype(np.uint16) * 4 for values in [*dark, *eight]]
    if pix_fmt == "rgb48le":
        deep = [np.repeat(values[..., None], 3, axis=2) for values in deep]
    source = open_source(raw_video(tmp_path / f"v{suffix}", deep, pix_fmt))
    assert source.info.levels == (0, 1023)
    frames = list(source)
    for frame, values in zip(frames[4:], eight, strict=True):
        assert np.abs(frame.rgb.astype(int) - values[..., None]).max() <= 1
    assert source.notes == []
