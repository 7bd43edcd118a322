"""Folders of images: order, sizes, orientations, pixel formats, and files that are no images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import barcode_frame, read_barcode
from vidseg.errors import InputError
from vidseg.video import open_source, probe


def save(path, rgb, **keywords):
    Image.fromarray(rgb).save(path, **keywords)


def test_natural_order_and_time(tmp_path):
    for number, name in enumerate(["f1.png", "f2.png", "F10.PNG", "f010b.png", "g.png"]):
        save(tmp_path / name, barcode_frame(number))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._f1.png").write_bytes(b"no image either")
    source = open_source(tmp_path, image_fps=Fraction(10))
    frames = list(source)
    assert [read_barcode(f.rgb) for f in frames] == [0, 1, 2, 3, 4]
    assert [(f.index, f.pts) for f in frames] == [(k, k) for k in range(5)]
    assert [f.time_s for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert source.info.frame_count == 5
    assert source.info.time_base == Fraction(1, 10)
    assert source.info.name == tmp_path.name
    assert [f.index for f in open_source(tmp_path, frames=slice(1, 3))] == [1, 2]
    with pytest.raises(InputError, match="start at 5, but it has only 5"):
        open_source(tmp_path, frames=slice(5, None))


def test_mixed_sizes_name_both_files(tmp_path):
    save(tmp_path / "a.png", barcode_frame(0))
    save(tmp_path / "b.png", barcode_frame(0, 100, 50))
    with pytest.raises(InputError, match=r"a\.png is 120x64, b\.png is 100x50"):
        open_source(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = barcode_frame(77)
    undo = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
    undo |= {6: np.rot90, 7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", np.ascontiguousarray(undo.get(orientation, lambda a: a)(upright)), exif=exif)
    source = open_source(tmp_path / "a.png")
    assert (source.info.width, source.info.height) == (120, 64)
    (frame,) = source
    assert (frame.rgb == upright).all()


def test_pixel_formats(tmp_path):
    rgb = barcode_frame(3)
    grey = rgb[..., 0]
    pictures = {
        "grey": Image.fromarray(grey),
        "rgba": Image.fromarray(rgb).convert("RGBA"),
        "palette": Image.fromarray(grey).convert("P"),
        "deep": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    for name, picture in pictures.items():
        folder = tmp_path / name
        folder.mkdir()
        picture.save(folder / "a.png")
        (frame,) = open_source(folder)
        assert frame.rgb.shape == (64, 120, 3)
        assert read_barcode(frame.rgb) == 3
        if name == "deep":
            assert (frame.rgb == grey[..., None]).all()


def test_a_damaged_image_leaves_a_gap_and_a_warning(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", barcode_frame(number))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_text("text")
    source = open_source(tmp_path)
    assert [(f.index, read_barcode(f.rgb)) for f in source] == [(0, 0), (3, 3)]
    assert len(source.warnings) == 2
    assert source.warnings[0].startswith("images skipped: 1 (1.png): damaged image")
    assert source.warnings[1] == "images skipped: 1 (2.png): not an image that can be read"


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="a folder without images"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(InputError, match="not an image"):
        open_source(tmp_path)
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(InputError, match="none of its 2 images"):
        open_source(tmp_path)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"the folder cannot be read \(Permission denied\)"):
        open_source(tmp_path)


def test_pixel_limit_from_the_header(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="larger than the limit"):
        probe(tmp_path / "bomb.png")


def test_frames_carry_the_names_of_their_files(tmp_path):
    for stem in ("00010", "00000", "00005"):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{stem}.jpg")
    source = open_source(str(tmp_path))
    assert source.info.frame_names == ("00000.jpg", "00005.jpg", "00010.jpg")
    assert [frame.name for frame in source] == list(source.info.frame_names)
    assert [frame.name for frame in open_source(str(tmp_path / "00005.jpg"))] == ["00005.jpg"]
