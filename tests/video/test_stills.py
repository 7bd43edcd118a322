"""Pictures as people have them: depths, floating point, stacks, other endings, and what else is in their folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from media import barcode_frame, read_barcode
from toys import KeepMasks, tiny_sam
from vidseg.errors import InputError
from vidseg.types import Frame
from vidseg.video import open_source
from vidseg.video.images import image_size, read_image
from vidseg.video.levels import find_levels, to_uint8
from vidseg_pipelines.cli import main
from vidseg_pipelines.run_inputs import fingerprint

GREY = [barcode_frame(n)[..., 0] for n in range(5)]
RGB = [barcode_frame(n) for n in range(5)]


def save(folder: Path, pictures: Sequence[np.ndarray], name: str = "{}.png", **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(number), **options)
    return folder


def save_by_opencv(folder: Path, pictures: Sequence[np.ndarray], suffix: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), picture if picture.ndim == 2 else picture[..., ::-1])
    return folder


def numbers(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    return [(frame.index, read_barcode(frame.rgb)) for frame in frames]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("suffix", "colour"),
    [(".tif", False), (".png", False), (".pgm", False), (".tif", True), (".png", True), (".ppm", True)],
)
def test_fewer_bits_in_files_of_16_are_as_bright_as_8(tmp_path: Path, bits: int, suffix: str, colour: bool) -> None:
    pictures = RGB if colour else GREY
    white = (1 << bits) - 1
    deep = [np.round(picture / 255 * white).astype(np.uint16) for picture in pictures]
    deep[0][0, 0] = white  # a pixel that uses all bits
    source = open_source(save_by_opencv(tmp_path / "deep", deep, suffix))
    assert source.info.levels == (0, white)
    frames = list(source)
    assert source.warnings == source.notes == []
    for frame, picture in zip(frames[1:], RGB[1:], strict=True):
        expected = picture if colour else np.repeat(picture[..., :1], 3, axis=2)
        assert np.abs(frame.rgb.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("convert", "levels"),
    [
        (lambda g: (g / 255).astype(np.float32), (0, 1)),
        (lambda g: (g / 250).astype(np.float32), (0, 1)),  # resampling overshoots
        (lambda g: g.astype(np.float32), (0, 255)),
        (lambda g: (g * 16.0).astype(np.float32), (0, 4095)),
        (lambda g: g.astype(np.float64) / 255, (0, 1)),
        (lambda g: np.repeat((g / 255).astype(np.float32)[..., None], 3, axis=2), (0, 1)),
        (lambda g: g.astype(np.int32) * 4, (0, 1023)),
        (lambda g: g.astype(np.int32) * 8_400_000, (0, (1 << 31) - 1)),
    ],
    ids=["unit", "overshoot", "255", "4095", "double", "colour", "int32", "large"],
)
def test_floating_point_and_32_bits_get_one_range(
    tmp_path: Path, convert: Callable[[np.ndarray], np.ndarray], levels: tuple[float, float]
) -> None:
    source = open_source(save_by_opencv(tmp_path / "deep", [convert(grey) for grey in GREY], ".tif"))
    assert source.info.levels == levels
    frames = list(source)
    assert numbers(frames) == [(n, n) for n in range(5)]
    white = max(int(f.rgb.max()) for f in frames)
    assert 215 < white <= 255 and source.warnings == []


def test_a_range_that_is_hardly_filled_is_stretched_once_for_all_frames(tmp_path: Path) -> None:
    thermal = [(7000 + grey.astype(np.uint16) * 4) for grey in GREY]  # 14 bits, of which 7000..8020 are used
    source = open_source(save(tmp_path / "deep", thermal, "{}.tif"))
    assert source.info.levels is not None
    low, high = source.info.levels
    assert 7000 <= low < 7200 and 7900 < high <= 8020
    frames = list(source)
    assert numbers(frames) == [(n, n) for n in range(5)]
    bars = [int(frame.rgb[5, 5:115].max()) for frame in frames[1:]]
    assert max(bars) - min(bars) <= 1  # no flicker


def test_the_range_comes_from_frames_all_over_the_folder(tmp_path: Path) -> None:
    dark = [np.zeros_like(GREY[0], np.uint16)] * 40
    source = open_source(save(tmp_path / "deep", [*dark, *(grey.astype(np.uint16) * 4 for grey in GREY)], "{:02d}.png"))
    assert source.info.levels == (0, 1023)


def test_frames_outside_the_range_are_noted(tmp_path: Path) -> None:
    pictures = [GREY[1].astype(np.uint16)] * 33
    pictures[1] = GREY[1].astype(np.uint16) * 200  # not among the frames that are looked at
    source = open_source(save(tmp_path / "deep", pictures, "{:02d}.png"))
    list(source)
    assert source.info.levels == (0, 255)
    assert source.notes == ["1 frames have values outside the range of the others and were cut to it (01.png)"]


def test_levels_of_odd_values() -> None:
    assert find_levels([]) == (0, 1)
    assert find_levels([np.full((4, 4), np.nan, np.float32)]) == (0, 1)
    assert find_levels([np.full((4, 4), 3, np.uint16)]) == (0, 255)
    low, high = find_levels([np.linspace(-1000, 3000, 10_000).astype(np.int16)])  # Hounsfield units
    assert -1000 <= low < -980 and 2980 < high <= 3000
    values = np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32)
    assert to_uint8(values, (0.0, 1.0)).tolist() == [[0, 0, 255, 128]]


def test_one_deep_picture_is_read_alone(tmp_path: Path) -> None:
    ten = GREY[3].astype(np.uint16) * 4
    Image.fromarray(ten).save(tmp_path / "ten.tif")
    assert (np.abs(read_image(tmp_path / "ten.tif").astype(int) - GREY[3][..., None]) <= 1).all()


def test_damaged_deep_pictures_are_skipped_in_silence_of_the_decoders(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for suffix in (".png", ".tif", ".ppm"):
        folder = save_by_opencv(tmp_path / suffix[1:], [rgb.astype(np.uint16) * 4 for rgb in RGB], suffix)
        whole = (folder / f"2{suffix}").read_bytes()
        (folder / f"2{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
        source = open_source(folder)
        assert [n for n, _ in numbers(list(source))] == [0, 1, 3, 4]
        assert source.warnings[0].startswith(f"images skipped: 1 (2{suffix}): ")
    assert capfd.readouterr().err == ""


def test_turned_deep_pictures_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = [np.ascontiguousarray(np.rot90(grey)).astype(np.uint16) * 257 for grey in GREY]
    for suffix, options in ((".tif", {}), (".tif", {"compression": "tiff_lzw"}), (".png", {})):
        folder = tmp_path / f"{suffix}{len(options)}"
        source = open_source(save(folder, deep, f"{{}}{suffix}", exif=exif, **options))
        assert (source.info.width, source.info.height, source.info.rotation) == (120, 64, 90)
        assert all((f.rgb == grey[..., None]).all() for f, grey in zip(source, GREY, strict=True))
    plain = save(tmp_path / "plain", [np.ascontiguousarray(np.rot90(rgb)) for rgb in RGB], "{}.tif", exif=exif)
    assert all((f.rgb == rgb).all() for f, rgb in zip(open_source(plain), RGB, strict=True))


def stack(path: Path, pages: Sequence[np.ndarray], **options: object) -> Path:
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest, **options)
    return path


@pytest.mark.parametrize(
    ("convert", "levels"),
    [
        (lambda rgb: rgb, None),
        (lambda rgb: rgb[..., 0].astype(np.uint16) * 4, (0, 1023)),
        (lambda rgb: (rgb[..., 0] / 255).astype(np.float32), (0, 1)),
        (lambda rgb: rgb.astype(np.uint16) * 4, (0, 1023)),
    ],
    ids=["rgb", "ten-bits", "float", "deep-rgb"],
)
def test_a_tiff_of_several_pages_is_a_video(
    tmp_path: Path, convert: Callable[[np.ndarray], np.ndarray], levels: tuple[float, float] | None
) -> None:
    pages = [convert(rgb) for rgb in RGB]
    if pages[0].dtype == np.uint16 and pages[0].ndim == 3:
        assert cv2.imwritemulti(str(tmp_path / "stack.tif"), [page[..., ::-1] for page in pages])
    else:
        stack(tmp_path / "stack.tif", pages, compression="tiff_lzw")
    source = open_source(tmp_path / "stack.tif", image_fps=Fraction(10))
    assert (source.info.frame_count, source.info.levels, source.info.name) == (5, levels, "stack")
    frames = list(source)
    assert numbers(frames) == [(n, n) for n in range(5)]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    part = open_source(tmp_path / "stack.tif", frames=slice(2, 4))
    assert numbers(list(part)) == [(2, 2), (3, 3)]


def test_animations_keep_their_times(tmp_path: Path) -> None:
    for name in ("a.webp", "a.png", "a.gif"):
        stack(tmp_path / name, RGB, duration=[100, 50, 200, 100, 40], **({"lossless": True} if "webp" in name else {}))
        source = open_source(tmp_path / name)
        frames = list(source)
        assert numbers(frames) == [(n, n) for n in range(5)]
        assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.15, 0.35, 0.45])
    assert [f.time_s for f in open_source(tmp_path / "a.webp", frames=slice(3, 5))] == pytest.approx([0.35, 0.45])


def test_a_thumbnail_inside_a_tiff_is_no_page_and_pages_have_one_size(tmp_path: Path) -> None:
    small = Image.fromarray(RGB[1][::2, ::2])
    Image.fromarray(RGB[1]).save(tmp_path / "pages.tif", save_all=True, append_images=[small])
    with pytest.raises(InputError, match="pages of different sizes: number 0 is 120x64, number 1 is 60x32"):
        open_source(tmp_path / "pages.tif")
    small.encoderinfo = {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2()}
    small.encoderinfo["tiffinfo"][254] = 1  # a smaller copy of another page
    Image.fromarray(RGB[1]).save(tmp_path / "thumb.tif", save_all=True, append_images=[small])
    assert numbers(list(open_source(tmp_path / "thumb.tif"))) == [(0, 1)]


def test_a_picture_of_several_pages_is_never_reduced_to_one_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(save(tmp_path / "f", RGB[:2]) / "stack.tif", RGB)
    for call in (open_source, lambda f: read_image(f / "stack.tif"), lambda f: image_size(f / "stack.tif")):
        with pytest.raises(InputError, match="holds 5 images where one is expected"):
            call(tmp_path / "f")
    monkeypatch.setattr("vidseg_pipelines.commands.image_files.load_sam", lambda *a, **k: tiny_sam())
    command = ["image", str(tmp_path / "f" / "stack.tif"), "--box", "5,5,40,40", "--output", str(tmp_path / "out")]
    assert main(command) == 3
    assert "holds 5 images" in capsys.readouterr().err


def test_the_main_picture_of_a_jpeg_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    pages = [Image.fromarray(rgb) for rgb in RGB[:2]]
    pages[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pages[1:], quality=95)
    source = open_source(tmp_path)
    assert numbers(list(source)) == [(0, 0)]
    assert source.notes == [
        "1 images hold more besides the main one (previews, depth); only the main one is read (a.jpg)"
    ]


def test_pictures_are_known_by_any_ending_or_by_their_content(tmp_path: Path) -> None:
    save(tmp_path, RGB, "{}.jpg", quality=95)
    (tmp_path / "1.jpg").rename(tmp_path / "1.jfif")
    (tmp_path / "2.jpg").rename(tmp_path / "2.JPG_large")
    (tmp_path / "3.jpg").rename(tmp_path / "3")
    for name in ("notes.txt", "0.json", "Thumbs.db", "._0.jpg", "empty"):
        (tmp_path / name).write_bytes(b"{}" if name != "empty" else b"")
    source = open_source(tmp_path)
    assert numbers(list(source)) == [(n, n) for n in range(5)]
    assert source.warnings == source.notes == []


def test_pictures_that_cannot_be_read_keep_their_places(tmp_path: Path) -> None:
    save(tmp_path, RGB, "IMG_{}.jpg", quality=95)
    for number in (1, 3):
        (tmp_path / f"IMG_{number}.jpg").unlink()
        (tmp_path / f"IMG_{number}.HEIC").write_bytes(bytes(4) + b"ftypheic" + bytes(64))
    source = open_source(tmp_path)
    assert numbers(list(source)) == [(0, 0), (2, 2), (4, 4)]
    assert source.info.frame_count == 5
    reason = ".heic images cannot be read: convert them to PNG or JPEG"
    assert source.warnings == [f"images skipped: 2 (IMG_1.HEIC, IMG_3.HEIC): {reason}"]
    with pytest.raises(InputError, match=r"IMG_1\.HEIC: \.heic images cannot be read"):
        open_source(tmp_path / "IMG_1.HEIC")


def test_a_raw_file_beside_its_jpeg_is_the_same_frame(tmp_path: Path) -> None:
    save(tmp_path, RGB, "IMG_{}.jpg", quality=95)
    (tmp_path / "IMG_2.CR2").write_bytes(b"II*\0" + bytes(64))
    source = open_source(tmp_path)
    assert numbers(list(source)) == [(n, n) for n in range(5)] and source.warnings == []


def test_two_pictures_of_one_stem_are_never_two_frames(tmp_path: Path) -> None:
    folder = save(tmp_path / "fra[mes]", RGB, "{}.jpg", quality=95)
    save(folder, RGB, "{}.png")
    with pytest.raises(InputError, match=r"5 frames have two images each, such as 0\.jpg and 0\.png: .*\*\.jpg'"):
        open_source(folder)
    source = open_source(folder / "*.jpg")  # as the message says
    assert numbers(list(source)) == [(n, n) for n in range(5)]
    assert source.info.name == "fra[mes]" and source.info.frame_names[0] == "0.jpg"
    with pytest.raises(InputError, match="no image has such a name"):
        open_source(folder / "*.bmp")


def test_a_change_of_what_a_pattern_names_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, RGB, "{}.png")
    before = fingerprint(tmp_path / "*.png")
    save(tmp_path, RGB, "{}.jpg")
    assert before["files"] == 5 and fingerprint(tmp_path / "*.png") == before
    save(tmp_path, RGB[1:2], "0.png")
    assert fingerprint(tmp_path / "*.png") != before


def test_names_that_do_not_follow_the_others_are_noted(tmp_path: Path) -> None:
    save(tmp_path, RGB, "{:05d}.jpg")
    save(tmp_path, RGB[:1], "overlay.png")
    save(tmp_path, RGB[:1], "00001 (1).jpg")
    source = open_source(tmp_path)
    assert len(list(source)) == 7
    (note,) = source.notes
    assert note.startswith("names of 2 images differ from the other 5 (00000.jpg): 00001 (1).jpg, overlay.png")


def test_equal_reasons_are_one_line(tmp_path: Path) -> None:
    save(tmp_path, RGB * 8, "{:02d}.png")
    for file in sorted(tmp_path.iterdir())[1:]:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    source = open_source(tmp_path)
    assert len(list(source)) == 1
    (warning,) = source.warnings
    assert warning.startswith("images skipped: 39 (01.png, 02.png,") and "08.png, ...)" in warning


def test_a_folder_of_which_nothing_can_be_read_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vidseg_pipelines.build.load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr("vidseg_pipelines.build.build_tracker", lambda *a, **k: KeepMasks())
    folder = save(tmp_path / "cut", RGB)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    assert main(["run", str(folder), "--box", "5,5,40,40", "--output", str(tmp_path / "out")]) == 3
    assert "none of its 5 images can be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_limit_that_is_raised_holds_for_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow's own limit: an error at twice as much
    folder = save(tmp_path / "f", RGB)
    with pytest.raises(InputError):
        open_source(folder, pixel_limit=7000)
    assert numbers(list(open_source(folder, pixel_limit=8000))) == [(n, n) for n in range(5)]
    assert read_image(folder / "0.png", 8000).shape == (64, 120, 3)
    save(tmp_path / "t", RGB, "{}.tif")
    assert numbers(list(open_source(tmp_path / "t", pixel_limit=8000))) == [(n, n) for n in range(5)]
    assert Image.MAX_IMAGE_PIXELS == 2000


def test_a_run_writes_its_range_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg_pipelines.build.load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr("vidseg_pipelines.build.build_tracker", lambda *a, **k: KeepMasks())
    folder = save(tmp_path / "deep", [grey.astype(np.uint16) * 4 for grey in GREY[:2]])
    command = ["run", str(folder), "--box", "5,5,40,40", "--save", "none", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["video"]["levels"] == [0.0, 1023.0]
