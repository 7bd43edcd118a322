"""Label maps: the quick way through plain PNG files gives what Pillow gives, and nothing where Pillow has to judge."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidseg.errors import InputError
from vidseg.evaluation import label_maps
from vidseg.evaluation.label_maps import read_label_map
from vidseg.evaluation.png import plain_pixels
from vidseg.masks.palette import davis_palette

LIMIT = 1 << 20
GREY, RGB, PALETTE = 0, 2, 3


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: Sequence[bytes], width: int, depth: int, colour: int, before: bytes = b"", pieces: int = 1) -> bytes:
    """A PNG file whose rows are filtered already."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    stream = zlib.compress(b"".join(rows))
    step = -(-len(stream) // pieces)
    parts = b"".join(chunk(b"IDAT", stream[k : k + step]) for k in range(0, len(stream), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + parts + chunk(b"IEND", b"")


def pillow(data: bytes) -> np.ndarray | None:
    """The pixels, or None where a label map is refused."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return None
    return np.asarray(image).astype(np.uint8) if image.mode in ("P", "L", "1") else None


@st.composite
def files(draw: st.DrawFn) -> bytes:
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 8))
    colour = draw(st.sampled_from([GREY, RGB, PALETTE, PALETTE]))
    depth = draw(st.sampled_from([8, 8, 8, 1, 2, 4] if colour != RGB else [8]))
    bits = width * depth * (3 if colour == RGB else 1)
    filters = draw(st.lists(st.sampled_from(draw(st.sampled_from([[0], [0, 1, 2, 3, 4]]))), min_size=height))[:height]
    filters += [0] * (height - len(filters))
    rows = [bytes([f]) + draw(st.binary(min_size=(bits + 7) // 8, max_size=(bits + 7) // 8)) for f in filters]
    before = b""
    if colour == PALETTE:
        before += chunk(b"PLTE", davis_palette().tobytes()[: 3 * draw(st.sampled_from([1, 2, 16, 256]))])
    before += draw(st.sampled_from([b"", b"", chunk(b"tRNS", b"\0\1"), chunk(b"gAMA", b"\0\0\1\0")]))
    return png(rows, width, depth, colour, before, draw(st.integers(1, 3)))


@settings(max_examples=400, deadline=None)
@given(files())
def test_plain_pixels_are_those_of_pillow(data: bytes) -> None:
    quick = plain_pixels(data, LIMIT)
    if quick is not None:
        assert np.array_equal(quick, pillow(data))


@settings(max_examples=600, deadline=None)
@given(files(), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3), st.none() | st.integers(0))
def test_damaged_files_get_the_same_answer(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    bytes_ = bytearray(data)
    for place, value in changes:
        bytes_[place % len(bytes_)] = value
    damaged = bytes(bytes_ if cut is None else bytes_[: cut % len(bytes_)])
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(damaged)
    wanted = pillow(damaged)
    if wanted is None:
        with pytest.raises(InputError, match=r"damaged\.png: "):
            read_label_map(path)
    else:
        assert np.array_equal(read_label_map(path), wanted)


ROWS = [b"\0" + bytes(range(k, k + 9)) for k in range(5)]
COLOURS = chunk(b"PLTE", bytes(768))


def test_what_label_maps_look_like_is_plain() -> None:
    labels = np.random.default_rng(0).integers(0, 9, (40, 60)).astype(np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette(davis_palette().tobytes())
    for transparency in ({}, {"transparency": 0}):
        file = io.BytesIO()
        image.save(file, "PNG", **transparency)
        assert np.array_equal(plain_pixels(file.getvalue(), LIMIT), labels)
    grey = plain_pixels(png(ROWS, 9, 8, GREY, pieces=3), LIMIT)
    assert grey is not None and grey.tolist() == [list(range(k, k + 9)) for k in range(5)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        png(ROWS, 9, 8, GREY)[:-13],
        png(ROWS, 9, 8, GREY).replace(b"IDAT", b"IDAX"),
        png(ROWS, 9, 8, PALETTE),
        png(ROWS, 9, 8, PALETTE, chunk(b"PLTE", b"")),
        png(ROWS, 9, 8, PALETTE, chunk(b"PLTE", bytes(4))),
        png(ROWS, 9, 8, PALETTE, chunk(b"PLTE", bytes(771))),
        png(ROWS, 9, 8, PALETTE, COLOURS + COLOURS + chunk(b"zTXt", b"?")),
        png(ROWS, 9, 8, GREY, chunk(b"tRNS", b"\0\0")),
        png([b"\1" + row[1:] for row in ROWS], 9, 8, GREY),
        png(ROWS, 36, 2, GREY),
        png(ROWS, 3, 8, RGB),
        png(ROWS, 10, 8, GREY),
        png(ROWS, 8, 8, GREY),
        png([], 9, 8, GREY),
        png([b"\0" * 1025] * 1025, 1024, 8, GREY),
    ],
)
def test_the_rest_is_left_to_pillow(data: bytes) -> None:
    assert plain_pixels(data, LIMIT) is None


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_maps, "PIXEL_LIMIT", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(png([b"\0" * 41] * 30, 40, 8, GREY))
    with pytest.raises(InputError, match=r"a\.png: 40x30 is larger than the limit of 1000 pixels"):
        read_label_map(path)
    path.write_bytes(bytes(1001))
    with pytest.raises(InputError, match=r"a\.png: a file of 1,001 bytes is not a label map"):
        read_label_map(path)
    monkeypatch.undo()
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"a\.png: not a readable image \(Is a directory\)"):
        read_label_map(path)
