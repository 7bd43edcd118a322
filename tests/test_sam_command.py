"""``vidseg image`` and ``vidseg export-onnx`` from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam_oracle import mini_state, rule_image
from vidseg.cli import main
from vidseg.masks.rle import area, decode, from_coco


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
    args = ["image", photo, "--model", model, "--output", str(tmp_path), "--point", "60,40", "--candidates", "all"]
    assert main(args) == 0
    masks = records(tmp_path / "photo.json")["masks"]
    assert [(m["id"], m["object"]) for m in masks] == [(1, 1), (2, 1), (3, 1)]


def test_automatic(model: str, photo: str, tmp_path: Path) -> None:
    options = ["--points-per-side", "3", "--min-iou", "0", "--min-stability", "0.2"]
    assert main(["image", photo, "--auto", "--model", model, "--output", str(tmp_path), *options]) == 0
    masks = records(tmp_path / "photo.json")["masks"]
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


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--box", "200,200,300,300"], 2, "lies outside the frame, which is 128x96"),
        (["--box", "50,50,10,10"], 2, "x1 < x2"),
        (["--box", "nan,0,10,10"], 2, "wanted"),
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
