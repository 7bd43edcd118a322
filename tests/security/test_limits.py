"""Huge pictures and archives: refused with one line before memory is taken for their pixels."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from limited_child import commands_in_child
from media import barcode_frame, write_video
from vidseg.errors import InputError
from vidseg.masks import decode, from_coco
from vidseg.video.images import read_image
from vidseg_pipelines.cli import main

MOST_MB = 300
SIDE = 8192


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(path: Path, side: int, *, rows: int, colour: int = 0) -> Path:
    """A grey or RGB PNG of ``side`` x ``side`` pixels with data for some of its rows."""
    packer = zlib.compressobj()
    row = bytes(1 + side * (3 if colour else 1))
    stream = b"".join([*(packer.compress(row) for _ in range(rows)), packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", stream) + chunk(b"IEND", b""))
    return path


def h264(side: int) -> bytes:
    """One grey picture as a raw stream, encoded without an RGB copy of it."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    encoder.options = {"preset": "ultrafast"}
    encoder.thread_count = 1
    picture = av.VideoFrame(side, side, "yuv420p")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def patched(data: bytes, marker: bytes, offset: int, new: bytes) -> bytes:
    place = data.index(marker) + offset
    return data[:place] + new + data[place + len(new) :]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    small, large = h264(64), h264(SIDE)
    (folder / "large.h264").write_bytes(large)
    (folder / "later.h264").write_bytes(small * 3 + large)
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    huge = patched(jpeg.getvalue(), b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500))
    (folder / "frames.mjpeg").write_bytes(huge * 3)
    (folder / "bomb.jpg").write_bytes(huge)
    gif = write_video(folder / "bomb.gif", [barcode_frame(n, 64, 64) for n in range(2)], codec="gif", pix_fmt="rgb8")
    gif.write_bytes(patched(gif.read_bytes(), b"GIF8", 6, struct.pack("<HH", 65535, 65535)))
    (folder / "raw.y4m").write_bytes(b"YUV4MPEG2 W30000 H30000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(1000))
    png(folder / "square.png", SIDE, rows=SIDE)
    png(folder / "claims.png", 60_000, rows=3, colour=2)
    webp = io.BytesIO()
    Image.new("RGB", (64, 64)).save(webp, "WEBP", lossless=True)
    (bits,) = struct.unpack("<I", webp.getvalue()[21:25])  # VP8L: 14 bits of width - 1, 14 of height - 1
    bits = (bits & ~0xFFFFFFF) | 16382 | 16382 << 14
    (folder / "canvas.webp").write_bytes(patched(webp.getvalue(), b"VP8L", 9, struct.pack("<I", bits)))
    (folder / "images").mkdir()
    png(folder / "images" / "1.png", SIDE, rows=SIDE)
    for name in ("gt", "pred"):
        (folder / name / "a").mkdir(parents=True)
        for number in range(3):
            png(folder / name / "a" / f"{number}.png", SIDE, rows=SIDE)
    write_video(folder / "small.mp4", [barcode_frame(n) for n in range(3)])
    return folder


def test_huge_frames_are_refused_before_memory_is_taken(hostile: Path, tmp_path: Path) -> None:
    inputs = ["large.h264", "frames.mjpeg", "bomb.jpg", "bomb.gif", "raw.y4m", "square.png", "claims.png"]
    inputs += ["canvas.webp", "images"]
    commands = [["run", str(hostile / name), "--output", str(tmp_path / name)] for name in inputs]
    mask = ["--mask", str(hostile / "square.png")]
    commands.append(["run", str(hostile / "small.mp4"), *mask, "--output", str(tmp_path / "mask")])
    commands.append(["eval", "davis", "--gt", str(hostile / "gt"), "--pred", str(hostile / "pred")])
    commands.append(["eval", "vos", "--gt", str(hostile / "gt"), "--pred", str(hostile / "pred")])
    commands.append(["eval", "masks", "--gt", str(hostile / "gt" / "a"), "--pred", str(hostile / "pred" / "a")])
    for command, answer in zip(commands, commands_in_child(commands), strict=True):
        assert answer["code"] == 3, (command, answer)
        assert str(answer["err"]).count("\n") == 1, (command, answer)
        assert any(word in str(answer["err"]) for word in ("limit", "the frame is", "cannot", "not a video")), answer
        assert float(str(answer["mb"])) < MOST_MB, (command, answer)
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_a_larger_size_that_comes_later(hostile: Path, tmp_path: Path) -> None:
    """The stream begins with small pictures; the size changes behind the header that was checked."""
    script = (
        "import resource, sys; from vidseg.video import open_source\n"
        "mb = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "list(open_source(sys.argv[1])); before = mb()\n"
        "try: list(open_source(sys.argv[2]))\n"
        "except ValueError: pass\n"
        "print(mb() - before)"
    )
    files = [str(hostile / "small.mp4"), str(hostile / "later.h264")]
    answer = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert float(answer.stdout) < MOST_MB


@pytest.mark.parametrize("name", ["square.png", "bomb.jpg", "canvas.webp", "claims.png"])
def test_single_images_have_the_same_limit(hostile: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"limit") as caught:
        read_image(hostile / name)
    assert "\n" not in str(caught.value)


def test_masks_larger_than_any_frame_are_not_decoded() -> None:
    side = SIDE + 1
    with pytest.raises(InputError, match="RLE size"):
        from_coco({"size": [side, side], "counts": [side * side]})
    assert not decode(from_coco({"size": [64, 64], "counts": [4096]})).any()


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip", "7z"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.zip"])
def test_archives_are_not_unpacked(tmp_path: Path, kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "inside.mp4", [barcode_frame(n) for n in range(2)])
    path = tmp_path / name
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(video, "../../inside.mp4")
    elif kind == "7z":
        path.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    else:
        with tarfile.open(path, "w" if kind == "tar" else "w:gz") as tar:
            tar.add(video, "../../inside.mp4")
    assert main(["run", str(path), "--output", str(tmp_path / "out")]) == 3
    assert f"{name}: a {kind} archive, not a video: unpack it first" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"inside.mp4", name}


def test_limits_leave_8k_alone() -> None:
    from vidseg.video import PIXEL_LIMIT

    assert 7680 * 4320 < PIXEL_LIMIT < SIDE * SIDE
    assert np.prod([SIDE, 4320]) <= PIXEL_LIMIT
