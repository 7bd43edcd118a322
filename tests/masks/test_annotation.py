"""Masks given with --mask: how many objects a file holds, their ids, and why one does not fit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vidseg.errors import InputError
from vidseg.masks import davis_palette, encode, read_annotation
from vidseg.types import VideoInfo
from vidseg.video import probe
from vidseg_pipelines.commands import image_files
from vidseg_pipelines.commands.image import ImageCommand

HEIGHT, WIDTH = 96, 128
VIDEO = VideoInfo(WIDTH, HEIGHT, Fraction(24))


def cells(count: int) -> np.ndarray:
    ids = np.zeros((HEIGHT, WIDTH), np.uint16)
    for k in range(count):
        y, x = 2 + k // 10 * 12, 2 + k % 10 * 12
        ids[y : y + 8, x : x + 8] = k + 1
    return ids


TWO = np.where(cells(3) == 2, 0, cells(3)).astype(np.uint8)  # ids 1 and 3


def palette(index: np.ndarray) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8), "L")
    image.putpalette(davis_palette().tobytes())
    return image


def read(folder: Path, picture: Image.Image | np.ndarray, name: str = "m.png") -> dict[int, np.ndarray]:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(folder / name)
    return read_annotation(folder / name, VIDEO)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize(
    ("count", "kind"), [(3, "grey"), (40, "grey"), (60, "grey"), (40, "deep"), (70, "deep"), (70, "palette")]
)
def test_many_objects_are_each_as_given(tmp_path: Path, count: int, kind: str, name: str) -> None:
    ids = cells(count)
    objects = read(tmp_path, {"grey": ids.astype(np.uint8), "deep": ids, "palette": palette(ids)}[kind], name)
    assert list(objects) == list(range(1, count + 1))
    assert all((mask == (ids == k)).all() and mask.dtype == np.bool_ for k, mask in objects.items())


def test_ids_beyond_255_are_kept(tmp_path: Path) -> None:
    assert list(read(tmp_path, np.where(cells(9) > 0, cells(9) + 300, 0).astype(np.uint16))) == list(range(301, 310))
    assert list(read(tmp_path, np.where(cells(9) == 4, 300, 0).astype(np.uint16))) == [300]


@pytest.mark.parametrize(("value", "object_id"), [(1, 1), (3, 3), (128, 1), (200, 1), (255, 1)])
def test_one_value_is_one_object(tmp_path: Path, value: int, object_id: int) -> None:
    grey = Image.fromarray(((TWO > 0) * value).astype(np.uint8))
    for mode in ("L", "RGB", "RGBA"):
        objects = read(tmp_path, grey.convert(mode))
        assert list(objects) == [object_id] and (objects[object_id] == (TWO > 0)).all()
    assert list(read(tmp_path, (TWO > 0).astype(np.uint16) * 65535)) == [1]
    assert list(read(tmp_path, Image.fromarray(TWO > 0))) == [1]


def test_255_of_a_palette_is_void_or_alone_the_object(tmp_path: Path) -> None:
    assert list(read(tmp_path, palette(np.where(cells(9) == 9, 255, TWO)))) == [1, 3]
    alone = read(tmp_path, palette(np.where(TWO > 0, 255, 0)))
    assert list(alone) == [1] and (alone[1] == (TWO > 0)).all()
    assert list(read(tmp_path, palette(np.where(TWO > 0, 200, 0)))) == [200]  # an index is never in doubt


def test_colours_are_objects(tmp_path: Path) -> None:
    davis = np.asarray(palette(TWO).convert("RGB"))
    objects = read(tmp_path, davis)
    assert list(objects) == [1, 3] and (objects[3] == (TWO == 3)).all()
    assert list(read(tmp_path, davis * (TWO == 3)[..., None])) == [3]
    other = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    other[TWO == 1], other[TWO == 3] = (10, 200, 90), (250, 40, 77)
    objects = read(tmp_path, other)
    assert list(objects) == [1, 2] and (objects[2] == (TWO == 3)).all()


def test_soft_edges_and_pictures_are_refused(tmp_path: Path) -> None:
    white = Image.fromarray(((TWO > 0) * 255).astype(np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    for picture in (white.filter(ImageFilter.GaussianBlur(2)), noise, np.repeat(noise[..., None], 3, axis=2)):
        with pytest.raises(
            InputError, match="grey levels that do not form regions: a soft edge or a photograph, not objects"
        ):
            read(tmp_path, picture)


def test_what_is_no_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read_annotation(tmp_path / "none.png", VIDEO)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InputError, match=r"text\.png: not an image"):
        read_annotation(tmp_path / "text.png", VIDEO)
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 128 96\n")
    with pytest.raises(InputError, match=r"eps\.png: not an image"):
        read_annotation(tmp_path / "eps.png", VIDEO)
    with pytest.raises(InputError, match="the mask is empty"):
        read(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8))
    read(tmp_path, np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH), np.uint8), "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.png: not a readable image"):
        read_annotation(tmp_path / "half.png", VIDEO)


def test_another_size_is_explained_by_its_cause(tmp_path: Path) -> None:
    palette(TWO).save(tmp_path / "m.png")
    for video, message in (
        (
            VideoInfo(256, 192, Fraction(24)),
            "the mask is 128x96, the frame is 256x192: .* resize it with nearest neighbour",
        ),
        (VideoInfo(128, 128, Fraction(24)), "the mask is 128x96, the frame is 128x128: the aspect ratio differs"),
        (VideoInfo(96, 128, Fraction(24)), "the sides are swapped; turn the mask by 90 degrees"),
        (VideoInfo(96, 128, Fraction(24), rotation=270), "by their rotation, .* by 270 degrees clockwise"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            read_annotation(tmp_path / "m.png", video)
        assert ("resize" in str(raised.value)) == ("resize" in message)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_advice_to_turn_a_mask_is_right_for_every_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "f").mkdir()
    stored = np.zeros((WIDTH, HEIGHT), np.uint8)
    stored[3:20, 50:90] = 1
    Image.fromarray(stored).convert("RGB").save(tmp_path / "f" / "0.jpg", exif=exif)
    video = probe(tmp_path / "f")
    assert (video.width, video.height) == (WIDTH, HEIGHT)
    palette(stored).save(tmp_path / "m.png")  # drawn on the picture as it is stored
    with pytest.raises(InputError) as raised:
        read_annotation(tmp_path / "m.png", video)
    message = str(raised.value)
    assert "the mask is 96x128, the frame is 128x96: the sides are swapped" in message and "EXIF orientation" in message
    turns = {90: -1, 270: 1}[video.rotation]
    assert f"turn it by {video.rotation} degrees clockwise" in message
    followed = np.rot90(stored, turns)
    if "mirror it top to bottom" in message:
        followed = followed[::-1]
    Image.fromarray(stored).save(tmp_path / "exif.png", exif=exif)  # what the orientation makes of the same pixels
    (upright,) = read_annotation(tmp_path / "exif.png", video).values()
    assert (upright == followed).all()


def test_the_limit_of_pixels_is_that_of_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr("vidseg.masks.files.check_pixels", lambda path, size, limit: limits.append(limit))
    read(tmp_path, palette(TWO))
    assert limits == [WIDTH * HEIGHT]


def test_255_masks_of_vidseg_image_can_be_given_to_vidseg_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last would be void in a palette."""
    ids = np.arange(256).reshape(16, 16).repeat(6, 0).repeat(8, 1)
    monkeypatch.setattr(image_files, "load_sam", lambda *a, **k: None)
    monkeypatch.setattr(
        image_files,
        "_automatic",
        lambda *a: [
            {"id": k, "predicted_iou": 1.0, "area": 48, "segmentation": encode(ids == k)} for k in range(1, 256)
        ],
    )
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photo.jpg")
    assert ImageCommand(images=(str(tmp_path / "photo.jpg"),), output=tmp_path / "out").run() == 0
    assert list(read_annotation(tmp_path / "out" / "photo.png", VIDEO)) == list(range(1, 256))


def test_a_folder_of_masks_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder; name the mask of one frame in it"):
        read_annotation(tmp_path)
