"""Training data: folders, crops, scenes and prompts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidseg.datasets.pairs import Sample, find_clips, find_pairs, load
from vidseg.errors import InputError, UsageError
from vidseg.training.batches import PromptMix, make_batch, prompt_batch
from vidseg.training.folders import epoch_indices, find_sets, folder_batch, scale_jitter
from vidseg.training.scenes import Scene, SceneConfig, SceneMaker
from vidseg.training.splits import dev_clips, held_out, shows_clip


def picture(seed: int, height: int = 60, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[15:45, 20 + seed : 50 + seed] = 255
    image[mask > 0] += 150
    return image, mask


def write_pairs(images: Path, masks: Path, count: int = 3) -> None:
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image, mask = picture(i)
        cv2.imwrite(str(images / f"toy_{i}.jpg"), image)
        cv2.imwrite(str(masks / f"toy_{i}.png"), mask)


def test_pairs_with_one_and_several_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path / "i", tmp_path / "m", 2)
    cv2.imwrite(str(tmp_path / "m" / "toy_1.png"), np.zeros((60, 80), np.uint8))
    (tmp_path / "m" / "toy_1.png").rename(tmp_path / "m" / "toy_1__0.png")
    cv2.imwrite(str(tmp_path / "m" / "toy_1__1.png"), picture(1)[1])
    items = find_pairs(tmp_path / "i", tmp_path / "m")
    assert [(i.name, i.source, len(i.masks)) for i in items] == [("toy_0", "toy", 1), ("toy_1", "toy", 2)]
    assert load(items[1], max_side=40).image.shape == (30, 40, 3)
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path / "nowhere", tmp_path / "m")


def test_images_and_masks_in_one_folder_and_sizes(tmp_path: Path) -> None:
    write_pairs(tmp_path, tmp_path)
    items = find_sets(tmp_path.parent, [f"{tmp_path.name}:{tmp_path.name}"])
    assert len(items) == 3 and all(i.image.suffix == ".jpg" for i in items)
    cv2.imwrite(str(tmp_path / "toy_0.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="9x9, its image 80x60"):
        load(items[0])
    with pytest.raises(UsageError, match="did you mean 'dis5k'"):
        find_sets(tmp_path, ["dis5"])


def test_clips_split_by_palette_index(tmp_path: Path) -> None:
    for name in ("bear", "cow"):
        (tmp_path / name / "frames").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
        for i in range(4):
            cv2.imwrite(str(tmp_path / name / "frames" / f"{i:05}.jpg"), picture(0)[0])
            labels = np.zeros((60, 80), np.uint8)
            labels[:10], labels[10:20], labels[20:22] = 1, 2, 255
            cv2.imwrite(str(tmp_path / name / "masks" / f"{i:05}.png"), labels)
    items = find_clips(tmp_path, lambda name: name == "cow", stride=2)
    assert [i.name for i in items] == ["cow-00000", "cow-00002"]
    assert [int((m > 0).sum()) for m in load(items[0]).masks] == [800, 800]  # 255 is "ignore", not an object


def test_splits(tmp_path: Path) -> None:
    for name in "edcba":
        (tmp_path / name).mkdir()
    assert dev_clips(tmp_path) == ("a", "d")
    assert shows_clip("davis_bear-00012", ["bear"]) and not shows_clip("davis_bears-00012", ["bear"])
    names = [f"n{i}" for i in range(2000)]
    assert 40 < sum(held_out(n, 4) for n in names) < 130
    assert [held_out(n, 4) for n in names] == [held_out(n, 4) for n in names]


def test_scale_jitter_pads_and_keeps_alignment() -> None:
    image, mask = picture(0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        out, cover = scale_jitter(rng, image, mask, 64, (0.1, 2.0))
        assert out.shape == (64, 64, 3) and cover.shape == (64, 64)
        if (cover > 250).any():
            assert out[cover > 250].mean() > 140 > out[cover == 0].mean()
    small, _ = scale_jitter(rng, image, mask, 64, (0.1, 0.1))
    assert (small[20:, 20:] == 128).all()


def test_epochs_are_permutations() -> None:
    batches = [epoch_indices(5, b, 4, 11) for b in range(4)]
    assert len({i for b in batches[:2] for i in b}) == 8 and len({i for b in batches[2:] for i in b}) == 8
    assert batches[:2] != batches[2:] and batches[1] == epoch_indices(5, 1, 4, 11)
    with pytest.raises(UsageError, match="do not fill"):
        epoch_indices(0, 0, 4, 3)


def test_folder_batches_of_every_kind(tmp_path: Path) -> None:
    write_pairs(tmp_path / "i", tmp_path / "m")
    items = find_pairs(tmp_path / "i", tmp_path / "m")
    kinds = set()
    for seed in range(12):
        batch = folder_batch(np.random.default_rng(seed), items, 64, (0.5, 1.5))
        kinds.add((bool(batch.is_box[0]), batch.points.shape[1], bool(batch.has_mask[0])))
        for i in range(3):
            for x, y in batch.points[i].long().tolist():
                assert batch.targets[i, 0, y, x] > 0.5
    assert kinds == {(True, 0, False), (False, 10, False), (False, 0, True)}


def test_empty_mask_is_no_crash(tmp_path: Path) -> None:
    write_pairs(tmp_path / "i", tmp_path / "m", 1)
    cv2.imwrite(str(tmp_path / "m" / "toy_0.png"), np.zeros((60, 80), np.uint8))
    items = find_pairs(tmp_path / "i", tmp_path / "m")
    for seed in range(4):
        batch = folder_batch(np.random.default_rng(seed), items, 64, (0.5, 1.5))
        assert batch.boxes.tolist() == [[0, 0, 0, 0]] and batch.points.shape[1] == 0 and batch.targets.sum() == 0


def maker(paste: float = 0.5) -> SceneMaker:
    samples = {"toy": [Sample(image, (mask,)) for image, mask in (picture(i) for i in range(4))], "off": []}
    cutout = np.zeros((20, 20, 3), np.uint8), np.full((20, 20), 255, np.uint8)
    return SceneMaker(samples, {"toy": 1.0, "off": 1.0}, [cutout], SceneConfig(image_side=96, paste=paste, colour=0.0))


def test_scenes_keep_image_and_mask_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = maker(paste=0.0).make(rng, 64, 96)
        assert scene.image.shape == (64, 96, 3) and scene.masks.shape == (1, 64, 96)
        inside, outside = scene.masks[0] > 250, scene.masks[0] == 0
        assert scene.image[inside].mean() > 140 > scene.image[outside].mean()


def test_pasted_objects_cover_the_others() -> None:
    rng = np.random.default_rng(0)
    scenes = [maker(paste=1.0).make(rng, 64, 96) for _ in range(20)]
    assert max(len(s.masks) for s in scenes) >= 2
    assert all((s.masks.astype(int).sum(0) <= 256).all() for s in scenes)


def test_coarse_sources_make_scenes_that_teach_no_outlines() -> None:
    samples = {name: [Sample(*picture(0)[:1], (picture(0)[1],))] for name in ("a", "b")}
    config = SceneConfig(image_side=96, colour=0.0)
    rng = np.random.default_rng(0)
    for weights, fine in (({"a": 1.0}, True), ({"b": 1.0}, False)):
        scene = SceneMaker(samples, weights, [], config, coarse=["b"]).make(rng, 64, 64)
        assert scene.fine is fine
        assert prompt_batch(rng, [scene], 2, "two", PromptMix()).fine.tolist() == [fine] * 2


def test_thin_objects_are_drawn_more_often() -> None:
    image, full = picture(0)
    thin = np.where(np.eye(*full.shape, dtype=bool), 255, 0).astype(np.uint8)
    samples = {"a": [Sample(image, (full,)), Sample(image, (thin,))]}
    odds = SceneMaker(samples, {"a": 1.0}, [], SceneConfig(thin=0.5)).odds["a"]
    fill = np.eye(60).mean()
    assert odds.sum() == pytest.approx(1)
    assert odds[1] / odds[0] == pytest.approx((1 / fill) ** 0.5, rel=0.35)  # a full box counts once


def test_look_alikes_are_copies_of_the_scenes_own_object() -> None:
    image, mask = picture(1)
    config = SceneConfig(image_side=96, paste=1.0, alike=1.0, colour=0.0)
    black = np.zeros((20, 20, 3), np.uint8), np.full((20, 20), 255, np.uint8)
    scenes = SceneMaker({"a": [Sample(image, (mask,))]}, {"a": 1.0}, [black], config)
    rng = np.random.default_rng(0)
    for _ in range(10):
        scene = scenes.make(rng, 64, 96)
        for one in scene.masks:
            if (one > 250).sum() > 100:
                assert scene.image[one > 250].mean() > 140


def test_scene_sources_without_weight_are_an_error() -> None:
    with pytest.raises(UsageError, match="no training source"):
        SceneMaker({"a": []}, {"a": 1.0}, [], SceneConfig())


@pytest.mark.parametrize("layout", ["two", "four", "none"])
def test_prompts_of_a_batch_agree(layout: str) -> None:
    mask = picture(0)[1]
    scene = Scene(picture(0)[0], np.stack([mask, np.roll(mask, 5, axis=1)]))
    mix = PromptMix(click=0.5, mask=0.5)
    batch = prompt_batch(np.random.default_rng(0), [scene, scene], 5, layout, mix)  # type: ignore[arg-type]
    assert batch.rows.tolist() == [0] * 5 + [1] * 5 and batch.targets.shape == (10, 1, 60, 80)
    assert batch.logits.shape == (10, 1, 15, 20)
    if layout == "none":
        assert batch.has_mask.all() and not batch.is_box.any()
    else:
        assert batch.is_box.any() and not batch.is_box.all()
        assert batch.points.shape[1] == batch.box_points.shape[1] + 1  # the same number of tokens


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_shares_of_boxes_that_are_no_shares_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="add up to 1"):
        PromptMix(boxes=shares)


def test_batches_repeat_with_the_seed() -> None:
    first, second = (make_batch(np.random.default_rng(4), maker(), 2, 3, 64, 64, PromptMix()) for _ in range(2))
    assert torch.equal(first.images, second.images) and torch.equal(first.logits, second.logits)
