"""Synthetic sequences: deterministic, consistent labels; and the folder reader's splits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tiny_bank import disc, tiny_bank
from vidseg.errors import InputError, UsageError
from vidseg_trackers.xmem.training.bank import load_bank, read_clip
from vidseg_trackers.xmem.training.sequences import SequenceOptions, make_sequence


@pytest.mark.parametrize("clip_fraction", [0.0, 1.0])
def test_same_seed_same_sequence(clip_fraction: float) -> None:
    options = SequenceOptions(size=64, length=3, clip_fraction=clip_fraction)
    one, two = (make_sequence(tiny_bank(), options, 2, np.random.default_rng(5)) for _ in range(2))
    other = make_sequence(tiny_bank(), options, 2, np.random.default_rng(6))
    assert np.array_equal(one.frames, two.frames) and np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_frame_zero_shows_every_object(objects: int) -> None:
    options = SequenceOptions(size=64, length=4, clip_fraction=0.5, max_skip=2)
    for seed in range(12):
        made = make_sequence(tiny_bank(), options, objects, np.random.default_rng(seed))
        assert made.frames.shape == (4, 64, 64, 3) and made.frames.dtype == np.uint8
        assert made.labels.shape == (4, 64, 64) and made.objects == objects
        assert set(np.unique(made.labels[0])) - {0} == set(range(1, objects + 1))
        assert made.labels.max() == objects


@pytest.mark.parametrize("clip_fraction", [0.0, 1.0])
def test_labels_follow_the_pixels(clip_fraction: float) -> None:
    options = SequenceOptions(size=96, length=3, clip_fraction=clip_fraction, distractors=0.0)
    agreement = []
    for seed in range(10):
        made = make_sequence(tiny_bank(), options, 1, np.random.default_rng(seed))
        redder = made.frames[..., 0].astype(int) > made.frames[..., 2]
        agreement.append(float((redder == (made.labels > 0)).mean()))
    assert np.median(agreement) > 0.97  # colour changes may make single sequences grey


def test_objects_leave_and_return() -> None:
    def gone_and_back(leave: float) -> int:
        options = SequenceOptions(size=64, length=7, motion=0.1, distractors=0.0, leave=leave)
        made = [make_sequence(tiny_bank(), options, 1, np.random.default_rng(seed)).labels > 0 for seed in range(12)]
        areas = [labels.sum((1, 2)) / labels[0].sum() for labels in made]
        return sum(bool(area[3] < 0.4 and area[-1] > 0.5) for area in areas)

    assert gone_and_back(0.0) == 0
    assert gone_and_back(1.0) >= 4


def test_options_name_the_bad_value() -> None:
    with pytest.raises(UsageError, match="size 50"):
        SequenceOptions(size=50)


def write_tree(root, clips=("a", "b", "c", "d")) -> None:
    rng = np.random.default_rng(0)
    for name in clips:
        for folder in ("frames", "masks"):
            (root / "videos" / name / folder).mkdir(parents=True)
        for t in range(3):
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(
                root / f"videos/{name}/frames/{t:05d}.jpg"
            )
            palette = Image.fromarray(disc(40, 60, 20, 20 + t, 9) * np.uint8(2), mode="P")
            palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            palette.save(root / f"videos/{name}/masks/{t:05d}.png")
    for folder in ("train/images", "train/masks", "cutouts"):
        (root / folder).mkdir(parents=True)
    for stem in ("davis_a-00001", "davis_b-00001", "other_7"):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(root / f"train/images/{stem}.png")
        Image.fromarray(disc(40, 60, 20, 20, 9) * np.uint8(255)).save(root / f"train/masks/{stem}__0.png")


def test_bank_leaves_out_the_dev_third_and_what_is_held_out(tmp_path) -> None:
    write_tree(tmp_path)
    bank = load_bank(tmp_path, source_weights={"other": 3.0}, held_out=("b",))
    assert [clip.name for clip in bank.clips] == ["c"]  # a and d are the dev third
    assert len(bank.stills) == 1 and bank.weights.sum() == pytest.approx(1)  # only other_7
    with pytest.raises(InputError, match="no stills"):
        load_bank(tmp_path, source_weights={"other": 0}, held_out=("b",))


def test_clips_keep_their_label_numbers(tmp_path) -> None:
    write_tree(tmp_path, clips=("a",))
    clip = read_clip(tmp_path / "videos" / "a", short_side=20)
    assert clip.frames.shape == (3, 20, 30, 3) and set(np.unique(clip.labels)) == {0, 2}


def test_bank_reads_files_by_the_rules_of_all_training_data(tmp_path, caplog) -> None:
    write_tree(tmp_path)
    (tmp_path / "videos" / ".ipynb_checkpoints").mkdir()  # no clip, and no part of the dev third
    for path in (tmp_path / "videos" / "c" / "frames" / "._00000.jpg", tmp_path / "cutouts" / "Thumbs.db"):
        path.write_bytes(b"\0")
    frames = tmp_path / "videos" / "c" / "frames"
    (frames / "00001.jpg").rename(frames / "00001.JPG")
    mask = tmp_path / "videos" / "c" / "masks" / "00000.png"
    index = np.array(Image.open(mask))
    Image.fromarray(np.where(index > 0, 3, np.where(np.arange(60) < 5, 255, 0)).astype(np.uint8)).save(mask)
    for value, name in ((38, "other_8"), (0, "other_9")):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / f"train/images/{name}.png")
        Image.fromarray(disc(40, 60, 20, 20, 9) * np.uint8(value)).save(tmp_path / f"train/masks/{name}.png")
    bank = load_bank(tmp_path, source_weights={}, held_out=("b",))
    assert [clip.name for clip in bank.clips] == ["c"] and set(np.unique(bank.clips[0].labels[0])) == {0, 3}
    assert len(bank.stills) == 2 and "other_9" in caplog.text  # not the empty one
    (tmp_path / "train/masks/other_8.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"other_8.png: not an image"):
        load_bank(tmp_path, source_weights={}, held_out=("b",))


def test_clips_with_bad_masks_are_refused_by_name(tmp_path) -> None:
    write_tree(tmp_path, clips=("a",))
    mask = tmp_path / "videos/a/masks/00001.png"
    Image.fromarray(np.zeros((20, 60), np.uint8)).save(mask)
    with pytest.raises(InputError, match=r"00001.png: mask is 60x20, its image 60x40"):
        read_clip(tmp_path / "videos" / "a")
    mask.unlink()
    with pytest.raises(InputError, match=r"00001.png: no such file"):
        read_clip(tmp_path / "videos" / "a")
