"""What the values of a mask file mean: one rule, whatever tool wrote the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vidseg.errors import InputError
from vidseg.files import IMAGE_SUFFIXES, data_files, data_folders
from vidseg.masks.files import MaskFile, read_mask_values

H, W = 60, 80


def disc(cy: int = 30, cx: int = 30, r: int = 14) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return (y - cy) ** 2 + (x - cx) ** 2 <= r * r


DISC = disc()


def soft_edge(peak: int = 255, sigma: float = 0.8) -> np.ndarray:
    return np.round(cv2.GaussianBlur(DISC.astype(np.float32), (0, 0), sigma) * peak).astype(np.uint8)


def colours(mask: np.ndarray, colour: tuple[int, ...] = (48, 112, 32)) -> np.ndarray:
    return np.where(mask[..., None], np.array(colour, np.uint8), np.uint8(0))


def palette(index: np.ndarray, entries: list[int]) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8))
    image.putpalette(entries + [0] * (768 - len(entries)))
    return image


def read(folder: Path, picture: np.ndarray | Image.Image, name: str = "m.png") -> MaskFile:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(folder / name)
    return read_mask_values(folder / name)


@pytest.mark.parametrize("value", [1, 3, 38, 128, 200, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_one_value_beside_zero_is_the_mask(tmp_path: Path, value: int, mode: str) -> None:
    grey = (DISC * value).astype(np.uint8)
    picture = Image.fromarray(DISC.astype(np.uint16) * value * 200) if mode == "I;16" else Image.fromarray(grey)
    file = read(tmp_path, picture.convert(mode))
    assert file.kind == "binary" and (file.foreground() == DISC).all() and (file.grey() == DISC * 255).all()


@pytest.mark.parametrize(
    "picture",
    [
        colours(DISC),
        np.dstack([colours(DISC), np.where(DISC, 255, 0).astype(np.uint8)]),
        np.dstack([colours(DISC, (255, 255, 255)), np.full((H, W), 255, np.uint8)]),
        np.dstack([np.full((H, W, 3), 255, np.uint8), np.where(DISC, 255, 0).astype(np.uint8)]),  # white everywhere
        np.dstack([np.zeros((H, W, 3), np.uint8), np.where(DISC, 255, 0).astype(np.uint8)]),  # only the alpha differs
        Image.fromarray(DISC),
        palette(DISC * 1, [0, 0, 0, 128, 0, 0]),
        palette(DISC * 255, [0, 0, 0]),
        palette(np.where(DISC, 0, 1), [255, 255, 255, 0, 0, 0]),  # black and white, the white one first
        palette(np.where(DISC, 7, np.where(disc(30, 30, 16), 255, 0)), [0, 0, 0]),  # with a void rim
    ],
    ids=["colour", "alpha", "opaque", "white", "black", "1bit", "palette", "palette255", "white-first", "void"],
)
def test_colours_palettes_and_transparency(tmp_path: Path, picture: np.ndarray | Image.Image) -> None:
    assert (read(tmp_path, picture).foreground() == DISC).all()


def test_several_objects_or_classes_are_all_foreground(tmp_path: Path) -> None:
    ids = np.zeros((H, W), np.uint16)
    for k in range(40):
        y, x = 1 + k // 8 * 11, 1 + k % 8 * 9
        ids[y : y + 8, x : x + 7] = k + 1
    packed = np.kron(np.arange(1, 41).reshape(5, 8), np.ones((12, 10))).astype(np.uint16)  # no background between
    assert read(tmp_path, packed).kind == "labels"
    for picture in (ids.astype(np.uint8), ids, ids * 300, (ids * 6).astype(np.uint8)):
        file = read(tmp_path, picture)
        assert file.kind == "labels" and len(np.unique(file.values)) == 41 and (file.foreground() == (ids > 0)).all()
    two = read(
        tmp_path, np.where(DISC[..., None], colours(disc(30, 30, 8), (200, 0, 0)) + colours(DISC), 0).astype("u1")
    )
    assert two.kind == "labels" and (two.foreground() == DISC).all()
    lines = np.zeros((H, W), np.uint8)
    lines[:, 10], lines[:, 20], lines[range(60), range(60)] = 2, 3, 1  # scribbles one pixel wide
    assert (read(tmp_path, lines).foreground() == (lines > 0)).all()


def test_void_beside_small_ids_is_background(tmp_path: Path) -> None:
    ids = np.where(DISC, 5, np.where(disc(30, 30, 17), 255, 0)).astype(np.uint8)
    assert (read(tmp_path, ids).foreground() == DISC).all()
    many = np.arange(1, 256, dtype=np.uint8).repeat(16).reshape(255, 4, 4).transpose(1, 0, 2).reshape(4, 1020)
    assert (read(tmp_path, many).values == 255).any()  # the 255th of 255 objects is one


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 20.0])
def test_soft_edges_are_cut_at_128(tmp_path: Path, sigma: float) -> None:
    grey = soft_edge(sigma=sigma)
    for picture in (grey, np.repeat(grey[..., None], 3, axis=2), grey.astype(np.uint16) * 257):
        file = read(tmp_path, picture)
        assert file.kind == "soft" and (file.grey() == grey).all() and (file.foreground() == (grey > 128)).all()


def test_other_pictures_that_are_cut_at_128(tmp_path: Path) -> None:
    box = cv2.GaussianBlur(np.pad(np.full((20, 30), 255, np.uint8), 20), (5, 5), 0)  # its rims are straight lines
    trimap = np.where(disc(30, 30, 10), 255, np.where(DISC, 128, 0)).astype(np.uint8)
    faint = (soft_edge(40, 6.0) // 2).astype(np.uint8)  # a map of probabilities that found nothing
    ramp = np.linspace(0, 255, W * 8).astype(np.uint8)[None].repeat(H, 0)
    dull = np.where(DISC, 235, 16).astype(np.uint8)  # black and white of a video
    for grey in (box, trimap, faint, ramp, dull):
        assert (read(tmp_path, grey).foreground() == (grey > 128)).all()
    Image.fromarray(DISC.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)  # ringing around the edge
    assert (read_mask_values(tmp_path / "m.jpg").foreground() == DISC).mean() > 0.99


def test_a_soft_edged_dark_class_is_cut_at_half_its_level(tmp_path: Path) -> None:
    for picture in (soft_edge(38), np.dstack([soft_edge(v) for v in (48, 112, 32)])):
        assert (read(tmp_path, picture).foreground() == (soft_edge() > 127)).mean() > 0.995


def test_cut_out_is_masked_by_its_transparency(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    assert (read(tmp_path, np.dstack([photo, DISC.astype(np.uint8) * 255])).foreground() == DISC).all()


def test_nothing_is_an_empty_mask(tmp_path: Path) -> None:
    for picture in (np.zeros((H, W), np.uint8), np.zeros((H, W, 3), np.uint8), palette(DISC * 0, [0, 0, 0])):
        file = read(tmp_path, picture)
        assert file.kind == "empty" and not file.foreground().any()
    assert read(tmp_path, np.full((H, W), 255, np.uint8)).foreground().all()


def test_masks_are_turned_by_their_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DISC.astype(np.uint8)).save(tmp_path / "m.png", exif=exif)
    assert (read_mask_values(tmp_path / "m.png").foreground() == np.rot90(DISC, -1)).all()


def test_what_is_no_mask_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    pages = [Image.fromarray(DISC), Image.fromarray(DISC)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(DISC.astype(np.float32)).save(tmp_path / "float.tif")
    for name, message in (
        ("cut.png", "not a readable image$"),
        ("two.tif", "2 images in one file"),
        ("float.tif", "whole numbers"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(InputError, match=rf"{name}: .*{message}"):
            read_mask_values(tmp_path / name)


def test_which_files_of_a_folder_count(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.JFIF", "._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt", "~$a.png"):
        (tmp_path / name).touch()
    for name in (".ipynb_checkpoints", "__MACOSX", "clip", "folder.png"):
        (tmp_path / name).mkdir()
    assert [path.name for path in data_files(tmp_path, IMAGE_SUFFIXES)] == ["a.jpg", "b.PNG", "c.JFIF"]
    assert [path.name for path in data_files(tmp_path)] == ["a.jpg", "b.PNG", "c.JFIF", "notes.txt"]
    assert [path.name for path in data_folders(tmp_path)] == ["clip", "folder.png"]
