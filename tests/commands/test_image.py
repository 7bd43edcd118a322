"""``vidseg image`` and ``vidseg export-onnx`` from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam_oracle import mini_state, rule_image
from vidseg.masks.rle import area, decode, from_coco
from vidseg_pipelines.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "mini.pth"
    torch.save(mini_state(), path)
    return str(path)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(rule_image(96, 128)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def records(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


def test_boxes_and_points(model: str, photo: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["image", photo, "--model", model, "--output", str(out), "--box", "10,10,90,80", "--point", "7@60,40/-5,5"]
    assert main(args) == 0
    assert {p.name for p in out.iterdir()} == {"photo.png", "photo.json", "photo_overlay.jpg"}
    content = records(out / "photo.json")
    assert [m["id"] for m in content["masks"]] == [1, 7]
    labels = np.array(Image.open(out / "photo.png"))
    assert labels.shape == (96, 128) and set(np.unique(labels)) <= {0, 1, 7}
    last = from_coco(content["masks"][1]["segmentation"])
    assert np.array_equal(decode(last), labels == 7)
    assert content["masks"][1]["area"] == area(last)


def test_all_candidates(model: str, photo: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["image", photo, "--model", model, "--output", str(out), "--point", "60,40", "--candidates", "all"]
    assert main(args) == 0
    masks = records(out / "photo.json")["masks"]
    assert [(m["id"], m["object"]) for m in masks] == [(1, 1), (2, 1), (3, 1)]


def test_automatic(model: str, photo: str, tmp_path: Path) -> None:
    options = ["--points-per-side", "3", "--min-iou", "0", "--min-stability", "0.2"]
    assert main(["image", photo, "--auto", "--model", model, "--output", str(tmp_path / "out"), *options]) == 0
    masks = records(tmp_path / "out" / "photo.json")["masks"]
    areas = [m["area"] for m in masks]
    assert masks and areas == sorted(areas, reverse=True)


def test_nothing_found_still_writes(model: str, photo: str, tmp_path: Path) -> None:
    args = [
        "image",
        photo,
        "--model",
        model,
        "--output",
        str(tmp_path / "o"),
        "--points-per-side",
        "2",
        "--min-iou",
        "99",
    ]
    assert main(args) == 0
    assert records(tmp_path / "o" / "photo.json")["masks"] == []
    assert not np.array(Image.open(tmp_path / "o" / "photo.png")).any()


def test_grey_rgba_tiny_and_thin_images(model: str, tmp_path: Path) -> None:
    Image.fromarray(rule_image(20, 30)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([rule_image(20, 30), rule_image(20, 30)[..., :1]])).save(tmp_path / "rgba.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(tmp_path / "one.png")
    Image.fromarray(np.zeros((10, 20000, 3), np.uint8)).save(tmp_path / "thin.png")
    images = [str(p) for p in sorted(tmp_path.glob("*.png"))]
    out = tmp_path / "out"
    assert main(["image", *images, "--model", model, "--output", str(out), "--box", "0,0,1,1"]) == 0
    assert np.array(Image.open(out / "thin.png")).shape == (10, 20000)


def test_equal_names_do_not_overwrite_each_other(model: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rule_image(20, 30)).save(tmp_path / folder / "x.png")
    images = [str(tmp_path / f / "x.png") for f in ("a", "b")]
    assert main(["image", *images, "--model", model, "--output", str(tmp_path / "out"), "--box", "0,0,9,9"]) == 0
    assert {p.stem for p in (tmp_path / "out").glob("*.json")} == {"x", "x-2"}


def test_one_bad_image_fails_alone(model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jpg").write_bytes(Path(photo).read_bytes()[:200])
    out, bad = tmp_path / "out", str(tmp_path / "bad.jpg")
    assert main(["image", bad, photo, "--model", model, "--output", str(out), "--box", "0,0,9,9"]) == 5
    assert "1 of 2 images cannot be read" in capsys.readouterr().err
    assert (out / "photo.json").is_file()
    assert main(["image", bad, "--model", model, "--output", str(out), "--box", "0,0,9,9"]) == 3


def test_folders_and_patterns_stand_for_the_images_in_them(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("f2.png", "f10.png", "g.jpg"):
        Image.fromarray(rule_image(20, 30)).save(photos / name)
    (photos / "notes.txt").write_text("no image")
    for k, (named, expected) in enumerate({"": {"f2", "f10", "g"}, "f*.png": {"f2", "f10"}}.items()):
        out = tmp_path / f"out{k}"
        assert main(["image", str(photos / named), "--model", model, "--output", str(out), "--box", "0,0,9,9"]) == 0
        assert {path.stem for path in out.glob("*.json")} == expected
    (tmp_path / "empty").mkdir()
    wrong = {"empty": "no images in this folder", "photos/*.gif": "no file of that name", "none.png": "no such file"}
    for named, reason in wrong.items():
        assert main(["image", str(tmp_path / named), "--model", model, "--output", str(tmp_path / "no")]) == 3
        assert capsys.readouterr().err == f"vidseg: {tmp_path / named}: {reason}\n"


def test_an_image_that_a_prompt_lies_outside_of_fails_alone(
    model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(rule_image(20, 30)).save(small := tmp_path / "a.png")
    args = ["image", str(small), photo, "--model", model, "--output", str(tmp_path / "out"), "--box"]
    assert main([*args, "50,40,90,80"]) == 5
    assert f"1 of 2 images failed: {small}: object 1 on frame 0: box 50,40,90,80 lies" in capsys.readouterr().err
    assert (tmp_path / "out" / "photo.json").is_file()
    assert main([*args, "500,400,900,800", "--overwrite"]) == 2
    assert "2 of 2 images failed" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spelling", ["itself", "otherwise", "through a link"])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_an_image_is_never_replaced_by_its_result(
    photo: str, tmp_path: Path, spelling: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "links").symlink_to(tmp_path)
    folder = {"itself": tmp_path, "otherwise": tmp_path / "links" / ".." / tmp_path.name}.get(
        spelling, tmp_path / "links"
    )
    before = contents(tmp_path)
    assert main(["image", photo, "--box", "5,5,40,40", "--output", str(folder), *flags]) == 2
    told = capsys.readouterr().err
    assert "photo.png is an input and would be overwritten by " in told and told.count("\n") == 1
    assert contents(tmp_path) == before


def test_another_image_of_the_call_is_not_replaced_either(photo: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    other = Path(photo).rename(tmp_path / "raw" / "photo.jpg")
    Image.fromarray(rule_image(20, 30)).save(photo)
    before = contents(tmp_path)
    assert main(["image", str(other), photo, "--output", str(tmp_path), "--overwrite"]) == 2
    assert contents(tmp_path) == before


def test_results_that_are_there_are_replaced_only_when_asked(
    model: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["image", photo, "--model", model, "--output", str(tmp_path / "out"), "--box"]
    assert main([*args, "10,10,90,80"]) == 0
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert main([*args, "10,10,50,50"]) == 2
    assert "photo.png and 2 more exist: use --overwrite or another --output" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert main([*args, "10,10,50,50", "--overwrite"]) == 0
    assert contents(tmp_path / "out") != before


def test_images_of_which_none_can_be_read_leave_no_folder(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [tmp_path / f"{number}.png" for number in range(9)]
    for path in bad:
        path.write_bytes(b"no image")
    assert main(["image", *map(str, bad), "--model", model, "--output", str(tmp_path / "out")]) == 3
    assert "9 of 9 images cannot be read" in (told := capsys.readouterr().err) and told.endswith("and 4 more\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--box", "200,200,300,300"], 2, "lies outside the frame, which is 128x96"),
        (["--box", "50,50,10,10"], 2, "x1 < x2"),
        (["--box", "nan,0,10,10"], 2, "expected"),
        (["--point", "500,5"], 2, "outside the frame"),
        (["--auto", "--box", "0,0,9,9"], 2, "leave out"),
        (["--points-per-side", "0"], 2, "points_per_side 0"),
        (["--model", "nothing.pth"], 4, "no such weight file"),
        (["--model", "sam-hq-vit-l", "--offline"], 4, "--offline"),
        (["--device", "cuda:9"], 2, "CUDA"),
    ],
)
def test_wrong_use(
    model: str,
    photo: str,
    tmp_path: Path,
    options: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path))
    base = [] if "--model" in options else ["--model", model]
    assert main(["image", photo, "--output", str(tmp_path / "o"), *base, *options]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_export_onnx(model: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    assert main(["export-onnx", "--model", model, "--output", str(tmp_path / "onnx")]) == 0
    assert {p.name for p in (tmp_path / "onnx").iterdir()} == {"encoder.onnx", "decoder.onnx", "model.json"}
