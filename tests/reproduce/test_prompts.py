"""The prompts of the paper's tables: seeded, independent of each other, exactly where they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidseg.errors import InputError
from vidseg.evaluation.box_noise import noisy_boxes, prompt_box
from vidseg.sam.geometry import Geometry
from vidseg_pipelines.reproduce.config import ReproduceConfig
from vidseg_pipelines.reproduce.object_prompts import (
    ObjectPrompt,
    center_point,
    object_rng,
    simulate_prompt,
    stack_prompts,
    xyxy,
)

MASK = np.zeros((60, 100), bool)
MASK[10:31, 20:61] = True


def test_boxes_have_the_last_pixel_inside() -> None:
    asked = simulate_prompt(ReproduceConfig(prompt="gt-boxes"), np.random.default_rng(0), MASK)
    assert asked.box is not None
    assert asked.box.tolist() == [20, 10, 60, 30]


def test_noise_is_drawn_on_a_square_canvas_and_seeded() -> None:
    config = ReproduceConfig(prompt="noisy-boxes", noise=0.4, seed=3)
    one, same = (simulate_prompt(config, object_rng(config, 0, "a"), MASK).box for _ in range(2))
    assert one is not None and same is not None
    assert (one == same).all()
    scale = np.array([10.24, 1024 / 60] * 2, np.float32)
    wanted = noisy_boxes(prompt_box(MASK)[None] * scale, 0.4, object_rng(config, 0, "a"))[0] / scale
    assert np.allclose(one, wanted, atol=1e-4)
    for other in (object_rng(config, 1, "a"), object_rng(config, 0, "b"), object_rng(config, 0, "a", 1)):
        assert (simulate_prompt(config, other, MASK).box != one).any()
    assert (simulate_prompt(config, object_rng(replace(config, seed=4), 0, "a"), MASK).box != one).any()
    wide = [
        simulate_prompt(config, object_rng(config, trial, "a"), np.ones((60, 100), bool)).box for trial in range(50)
    ]
    assert np.max(wide) <= 100  # clamped to the image
    assert np.min(wide) >= 0


def test_the_single_point_is_the_innermost_one() -> None:
    assert center_point(MASK).tolist() == [30, 20]  # the first of the middle line, whose ends are 10 pixels in
    cut = np.zeros((40, 40), bool)
    cut[:21, :] = True
    assert center_point(cut)[1] == 10  # the border of the image is outside
    asked = simulate_prompt(ReproduceConfig(prompt="points"), np.random.default_rng(0), MASK)
    assert asked.points is not None and asked.labels is not None
    assert (asked.points.tolist(), asked.labels.tolist()) == ([[30, 20]], [1])


def test_several_points_are_distinct_pixels_of_the_object() -> None:
    config = ReproduceConfig(prompt="points", points=10, negative_points=5)
    asked = simulate_prompt(config, object_rng(config, 0, "a"), MASK)
    assert asked.points is not None and asked.labels is not None
    assert asked.labels.tolist() == [1] * 10 + [0] * 5
    assert len({tuple(p) for p in asked.points.tolist()}) == 15
    x, y = asked.points.astype(int).T
    assert MASK[y, x].tolist() == [True] * 10 + [False] * 5
    drawn = np.concatenate(
        [simulate_prompt(config, object_rng(config, trial, "a"), MASK).points[:10] for trial in range(200)]  # type: ignore[index]
    )
    assert drawn.min(axis=0).tolist() == [20, 10]  # all of the object, both ends included
    assert drawn.max(axis=0).tolist() == [60, 30]


def test_a_small_object_gets_fewer_points() -> None:
    tiny = np.zeros((9, 9), bool)
    tiny[4, 4:6] = True
    asked = simulate_prompt(ReproduceConfig(prompt="points", points=3), np.random.default_rng(0), tiny)
    assert asked.labels is not None and asked.labels.tolist() == [1, 1, -1]
    whole = simulate_prompt(
        ReproduceConfig(prompt="points", negative_points=1), np.random.default_rng(0), np.ones((9, 9), bool)
    )
    assert whole.labels is not None and whole.labels.tolist() == [1, -1]


def test_trials_only_where_something_is_drawn() -> None:
    draws = [
        (ReproduceConfig(prompt="gt-boxes"), 1),
        (ReproduceConfig(prompt="points"), 1),
        (ReproduceConfig(prompt="points", points=2), 3),
        (ReproduceConfig(prompt="points", negative_points=1, trials=5), 5),
        (ReproduceConfig(prompt="noisy-boxes"), 3),
        (ReproduceConfig(prompt="coarse-masks", benchmark="hq44k-val"), 3),
        (ReproduceConfig(prompt="coarse-masks", benchmark="big"), 1),
    ]
    assert all(config.draws == wanted for config, wanted in draws)


def test_coarse_masks_cover_the_frame_and_not_the_padding() -> None:
    geometry = Geometry((60, 100), (64, 112), (64, 128))  # low resolution: 16 x 32, of which 16 x 28 is the frame
    coarse = np.zeros((60, 100), np.float32)
    coarse[:, 50:] = 1
    prompts = stack_prompts([ObjectPrompt(coarse=coarse)], geometry, squashed=False)
    assert prompts.masks is not None and prompts.masks.shape == (1, 16, 32)
    assert (prompts.masks[0, :, :13] == -10).all() and (prompts.masks[0, :, 15:28] == 10).all()
    assert (prompts.masks[0, :, 28:] == -10).all()
    as_trained = stack_prompts([ObjectPrompt(coarse=coarse)], geometry, squashed=True)
    assert as_trained.masks is not None and np.unique(as_trained.masks).tolist() == [0, 255]


def test_coarse_masks_are_the_noisy_masks_of_the_training() -> None:
    config = ReproduceConfig(prompt="coarse-masks", benchmark="hq44k-val")
    one, same = (simulate_prompt(config, object_rng(config, 0, "a"), MASK).coarse for _ in range(2))
    other = simulate_prompt(config, object_rng(config, 1, "a"), MASK).coarse
    assert one is not None and same is not None and other is not None
    assert (one == same).all() and (one != other).any()
    assert set(np.unique(one)) == {0, 1}
    assert one[85, 102] == 1 and one[5, 5] == 0  # inside and far outside nothing changes


@pytest.mark.parametrize("value", [None, [1, 2, 3], [1, 2, float("nan"), 3], [1, 2, -1, 3], "1234"])
def test_boxes_of_files_are_checked(value: object) -> None:
    with pytest.raises(InputError, match=r"x: entry 1 has the box.*width, height"):
        xyxy(value, "x: entry 1")
    assert xyxy([1, 2, 3, 4], "").tolist() == [1, 2, 4, 6]
