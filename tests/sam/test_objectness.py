"""Which of several candidates is taken where a network has a judge of objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toys import tiny_sam
from vidseg.sam.automatic import AutomaticOptions, automatic_masks
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.model import Sam
from vidseg.sam.objectness import SHAPE, Objectness, object_chance, promise
from vidseg.sam.prompt_batch import PromptBatch

IMAGE = np.random.default_rng(3).integers(0, 255, (64, 96, 3), np.uint8)
CLICKS = PromptBatch(points=np.array([[[20, 30]], [[70, 11]], [[90, 60]]], np.float32), labels=np.ones((3, 1)))


def with_judge(likes: float, middle: float = 0.0) -> Sam:
    """A network that draws something at every click, whose judge likes large masks, or small ones (below 0).

    ``middle``: minus the logarithm of the area (share of the image) at which it is undecided.
    """
    sam = tiny_sam()
    sam.objectness = Objectness(sam.config.prompt_dim)
    with torch.no_grad():
        sam.objectness.weight.zero_()
        sam.objectness.weight[0, -SHAPE + 2] = likes  # the logarithm of the area
        sam.objectness.bias.fill_(likes * middle)
    return sam


def test_the_best_of_three_is_what_the_judge_calls_an_object() -> None:
    sam = with_judge(-8.0, 1.0)
    sam.mask_decoder.iou_prediction_head.layers[-1].bias.data.fill_(1.0)  # all are good
    (features,) = sam.encode([IMAGE])
    (every,) = sam.decode([features], [CLICKS], candidates="all")
    (best,) = sam.decode([features], [CLICKS], candidates="best")
    chance = object_chance(sam.objectness, features, every, CLICKS)
    rows, columns = features.geometry.low_res_frame
    stability = stability_score(every.logits[..., :rows, :columns])
    chosen = promise(every.iou, stability, chance).argmax(1)
    assert not torch.equal(chosen, promise(every.iou, stability, 1 - chance).argmax(1))  # the judge decides
    for row, column in enumerate(chosen.tolist()):
        assert torch.equal(best.logits[row, 0], every.logits[row, column])
        assert best.iou[row, 0] == every.iou[row, column]


def test_only_the_part_under_a_click_is_judged() -> None:
    sam = with_judge(1.0)
    (features,) = sam.encode([IMAGE])
    (answer,) = sam.decode([features], [CLICKS], candidates="all")
    rows, columns = features.geometry.low_res_frame
    logits = torch.full_like(answer.logits, -5.0)
    logits[:, :, :4, :4] = 5.0
    logits[:, 1:, rows - 9 : rows, columns - 9 : columns] = 5.0  # larger, and under the last click
    answer.logits.copy_(logits)
    chance = object_chance(sam.objectness, features, answer, CLICKS)
    alone = (81 / (rows * columns)) / (1 + 81 / (rows * columns))  # of the part: sigmoid of the logarithm of its area
    assert chance[2, 1] == pytest.approx(alone, rel=1e-3)
    assert chance[0, 1] > chance[0, 0]  # nothing under the click: all of it counts
    assert object_chance(None, features, answer, CLICKS).eq(1).all()


def test_automatic_masks_are_chosen_by_quality_alone() -> None:
    options = AutomaticOptions(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    found = [[m.rle for m in automatic_masks(with_judge(likes, 1.0), IMAGE, options)] for likes in (40.0, -40.0)]
    assert found[0] == found[1] and found[0]
