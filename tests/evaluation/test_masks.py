"""mIoU, mBIoU, boundary bands and box noise: the reference numbers and the edge cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval_media import expected, square, unpack
from vidseg.errors import InputError, UsageError
from vidseg.evaluation.box_noise import add_noise, add_noise_normalised, noisy_boxes, prompt_box
from vidseg.evaluation.region import evaluate_masks, mask_scores, read_binary, read_logits
from vidseg.masks.boundary import band_width, boundary_band


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracles")
    for name in ("miou_mbiou", "box_noise", "boundary_ops"):
        unpack(name, folder)
    return folder


def test_bands_equal_the_reference(oracles: Path) -> None:
    arrays = np.load(oracles / "boundary_ops" / "arrays.npz")
    for name, case in expected(oracles / "boundary_ops")["cases"].items():
        for ratio in (0.02, 0.01):
            width = band_width(*case["size"], ratio)
            assert width == case[f"dilation_{ratio}"]
            bands = [boundary_band(arrays[f"{name}_{side}"], width) for side in "ab"]
            for band, side in zip(bands, "ab", strict=True):
                assert (band == arrays[f"{name}_{side}_boundary_{ratio}"]).all(), name
            union = (bands[0] | bands[1]).sum()
            want = case[f"boundary_iou_{ratio}"]
            assert (want is None) == (union == 0)
            if want is not None:
                assert (bands[0] & bands[1]).sum() / union == pytest.approx(want, abs=1e-9)
                scores = mask_scores(arrays[f"{name}_a"], arrays[f"{name}_b"], ratio)
                assert scores == pytest.approx((case["J"], want), abs=1e-6)


def test_width_rounds_half_to_even_and_is_at_least_1() -> None:
    assert [band_width(*size) for size in ((375, 500), (225, 300), (75, 100), (105, 140), (4, 4))] == [12, 8, 2, 4, 1]
    for ratio in (0, -0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="ratio"):
            band_width(10, 10, ratio)


def test_band_is_a_chebyshev_distance_and_the_frame_is_background() -> None:
    full = boundary_band(np.ones((20, 30)), 3)
    assert (full[3:-3, 3:-3] == 0).all()
    assert full.sum() == 20 * 30 - 14 * 24
    assert boundary_band(np.ones((6, 30), bool), 3).all()  # thinner than two bands
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50)) > 0.02
    padded = np.pad(mask, 4)
    views = [padded[4 + dy : 44 + dy, 4 + dx : 54 + dx] for dy in range(-4, 5) for dx in range(-4, 5)]
    assert (boundary_band(mask, 4) == (mask & ~np.all(views, axis=0))).all()


@pytest.mark.parametrize(("kind", "workers"), [("pred_masks", 1), ("pred_logits", 2)])
def test_masks_equal_the_reference(oracles: Path, kind: str, workers: int) -> None:
    root = oracles / "miou_mbiou"
    want = expected(root)
    report = evaluate_masks(root / "gt", root / kind, workers=workers)
    strict = evaluate_masks(root / "gt", root / kind, ratio=0.01)
    for got, fine, row in zip(report.images, strict.images, want["per_image"], strict=True):
        assert (got.name, got.iou, got.biou) == (
            row["name"],
            pytest.approx(row["iou"], abs=1e-6),
            pytest.approx(row["biou"], abs=1e-6),
        )
        assert fine.biou == pytest.approx(row["biou_ratio_0_01"], abs=1e-6)
        box = prompt_box(read_binary(root / "gt" / f"{got.name}.png"))
        assert box.tolist() == row["box_xyxy"]
    summary = report.summary()
    assert summary["mIoU"] == pytest.approx(want["mean_valid"]["mIoU"], abs=1e-6)
    assert summary["mBIoU"] == pytest.approx(want["mean_valid"]["mBIoU"], abs=1e-6)
    assert (summary["count"], summary["empty"]) == (8, 8 - want["mean_valid"]["n"])
    assert report.recall() == pytest.approx(want["recall_at_biou"])


def _folders(folder: Path, gt: np.ndarray, pred: np.ndarray, name: str = "a") -> tuple[Path, Path]:
    for part, pixels in (("gt", gt), ("pred", pred)):
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"{name}.png")
    return folder / "gt", folder / "pred"


def test_foreground(tmp_path: Path) -> None:
    box = square((20, 30), 5, 5, 10)
    gt, pred = _folders(tmp_path, np.where(box, 129, 128), box)  # 128 is background; a file of 0 and 1 is a mask
    assert evaluate_masks(gt, pred).summary()["mIoU"] == 1
    Image.fromarray(box * 3, "P").save(pred / "a.png")  # palette: index above 0
    assert evaluate_masks(gt, pred).summary()["mIoU"] == 1
    Image.fromarray(np.stack([box * 255, box, box], 2)).save(pred / "a.png")  # colours: the first channel
    assert evaluate_masks(gt, pred).summary()["mIoU"] == 1
    Image.fromarray(box.astype(np.uint16) * 300).save(pred / "a.png")
    assert evaluate_masks(gt, pred).summary()["mIoU"] == 1


def test_a_mask_has_any_value_beside_0(tmp_path: Path) -> None:
    """Class values, several classes, half bright ones and colours of labels: all are foreground, in both folders."""
    box = square((20, 30), 5, 5, 10)
    classes = np.where(square((20, 30), 5, 20, 8), 2, box)
    colour = np.stack([box * 48, box * 112, box * 32], 2)
    for name, pixels in {"a": box * 38, "b": box * 128, "c": colour, "d": classes, "e": box * 0}.items():
        valued, white = _folders(tmp_path, pixels, (pixels.reshape(20, 30, -1).max(2) > 0) * 255, name)
    for gt, pred in ((valued, white), (white, valued)):
        report = evaluate_masks(gt, pred)
        assert [one.iou for one in report.images] == [1, 1, 1, 1, None]
        assert not report.notes


def test_128_among_brighter_files_is_the_published_threshold_and_said(tmp_path: Path) -> None:
    box = square((20, 30), 5, 5, 10)
    gt, pred = _folders(tmp_path, box * 255, box * 255, "white")
    _folders(tmp_path, box * 128, box * 255, "half")
    report = evaluate_masks(gt, pred)
    assert [one.iou for one in report.images] == [0, 1]
    assert report.notes == ("1 files of 0 and 128 count as empty, as no value is above 128: half",)


def test_hidden_files_are_no_masks_and_endings_have_any_case(tmp_path: Path) -> None:
    box = square((20, 30), 5, 5, 10, 255)
    gt, pred = _folders(tmp_path, box, box)
    for folder in (gt, pred):
        (folder / "a.png").rename(folder / "a.PNG")
        (folder / "._a.PNG").write_bytes(b"no picture")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "Thumbs.db").write_bytes(b"no picture")
    report = evaluate_masks(gt, pred)
    assert (report.summary()["mIoU"], report.summary()["count"], report.notes) == (1, 1, ())


def test_empty_masks(tmp_path: Path) -> None:
    box, none = square((20, 30), 5, 5, 10, 255), np.zeros((20, 30))
    gt, pred = _folders(tmp_path, none, none)
    assert evaluate_masks(gt, pred).summary() == {"mIoU": None, "mBIoU": None, "count": 1, "empty": 1}
    assert set(evaluate_masks(gt, pred).recall().values()) == {0.0}
    _folders(tmp_path, box, none, "b")
    _folders(tmp_path, none, box, "c")
    _folders(tmp_path, box, box, "d")
    summary = evaluate_masks(gt, pred).summary()
    assert (summary["mIoU"], summary["count"], summary["empty"]) == (pytest.approx(1 / 3), 4, 1)


def test_boundary_iou_here_is_not_the_minimum(tmp_path: Path) -> None:
    """A ring with the outline of a full square: the bands agree on the outside, the masks hardly at all."""
    full = np.zeros((200, 200), bool)
    full[20:180, 20:180] = True
    ring = np.zeros((200, 200), bool)
    ring[20:180, 20:180] = True
    ring[24:176, 24:176] = False
    wide = mask_scores(full, ring, 0.01)
    assert wide is not None
    assert wide[1] > wide[0]


def test_recall_is_above_not_at(tmp_path: Path) -> None:
    band = np.zeros((10, 40))
    band[2, :20] = 255
    half = band.copy()
    half[2, 10:] = 0
    gt, pred = _folders(tmp_path, band, half)
    report = evaluate_masks(gt, pred)
    assert report.images[0].biou == 0.5
    assert report.recall()["0.5"] == 0


def test_logits(tmp_path: Path) -> None:
    low = np.array([[1.0, -3.0]], np.float16)
    np.save(tmp_path / "a.npy", low)
    assert read_logits(tmp_path / "a.npy", 1, 8).tolist() == [[True] * 3 + [False] * 5]  # half-pixel centres
    for wrong in (np.array([[np.nan]]), np.array([[1]]), np.zeros((2, 2, 2))):
        np.save(tmp_path / "a.npy", wrong)
        with pytest.raises(InputError, match="logits"):
            read_logits(tmp_path / "a.npy", 2, 2)
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable array"):
        read_logits(tmp_path / "a.npy", 2, 2)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    box = square((20, 30), 5, 5, 10, 255)
    gt, pred = _folders(tmp_path, box, box[:-1])
    with pytest.raises(InputError, match="30x19 pixels, but its ground truth has 30x20"):
        evaluate_masks(gt, pred)
    _folders(tmp_path, box, box)
    Image.fromarray(box).save(pred / "other.png")
    assert "other.png" in evaluate_masks(gt, pred).notes[0]
    (pred / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable image"):
        evaluate_masks(gt, pred)
    (pred / "a.png").unlink()
    with pytest.raises(InputError, match=r"no prediction a\.png or a\.npy"):
        evaluate_masks(gt, pred)
    with pytest.raises(InputError, match="no such folder"):
        evaluate_masks(gt, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no PNG files"):
        evaluate_masks(tmp_path, pred)


def test_noise_equals_the_reference(oracles: Path) -> None:
    want = expected(oracles / "box_noise")
    boxes = np.array(want["boxes_xyxy"], np.float32)
    centre = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1) / np.float32(1024)
    for case in want["cases"]:
        draws = np.array(case["rand"], np.float32)
        np.testing.assert_allclose(add_noise(boxes, draws, case["scale"]), case["sam_hq_xyxy"], atol=1e-6)
        np.testing.assert_allclose(
            add_noise_normalised(centre, draws, case["scale"]), case["dn_detr_cxcywh"], atol=1e-6
        )


def test_noise() -> None:
    boxes = np.array([[100, 100, 300, 200], [0, 0, 1024, 1024], [5, 5, 5, 5]], np.float32)
    assert np.array_equal(add_noise(boxes, np.full((3, 4), 0.5, np.float32), 0.4), boxes)
    assert np.array_equal(
        noisy_boxes(boxes, 0.4, np.random.default_rng(1)), noisy_boxes(boxes, 0.4, np.random.default_rng(1))
    )
    many = np.repeat(boxes, 300, axis=0)
    noisy = noisy_boxes(many, 1.0, np.random.default_rng(2))
    assert (noisy[:, :2] <= noisy[:, 2:]).all()  # never inside out
    assert noisy.min() >= 0 and noisy.max() <= 1024
    assert np.array_equal(noisy[-1], boxes[-1])
    small = noisy_boxes(many[:300], 0.2, np.random.default_rng(3))
    centre = (small[:, :2] + small[:, 2:]) / 2
    assert np.abs(centre - [200, 150]).max(axis=0) == pytest.approx([20, 10], rel=0.05)
    with pytest.raises(UsageError, match="scale of 0 to 1"):
        noisy_boxes(boxes, 1.5, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"\(N, 4\)"):
        add_noise(boxes, np.zeros((2, 4), np.float32), 0.2)


def test_prompt_box() -> None:
    assert prompt_box(square((20, 30), 3, 7, 5)).tolist() == [7, 3, 11, 7]  # last pixel, not one more
    assert prompt_box(np.zeros((5, 5))).tolist() == [1e8, 1e8, 0, 0]
