"""From boxes and clicks to masks: what a click keeps, and what a correction may and must change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from toys import TINY, tiny_sam
from vidseg.errors import UsageError
from vidseg.sam.geometry import frame_geometry
from vidseg.sam.model import FrameFeatures, Masks
from vidseg.sam.objectness import SHAPE, Objectness
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Prompt
from vidseg_pipelines import click_views
from vidseg_pipelines.drawing import draw_object, draw_prompts

FRAME = (480, 640)


class SeesBright:
    """A network for which all bright pixels are the object, whatever the prompt says."""

    config = replace(TINY, image_size=512)
    objectness: Objectness | None = None

    def __init__(self) -> None:
        self.asked: list[PromptBatch] = []

    def encode(self, images: Sequence[np.ndarray], side: int | None = None) -> list[FrameFeatures]:
        pictures = [torch.from_numpy(image).permute(2, 0, 1).float() for image in images]
        sizes = [frame_geometry(image.shape[:2], self.config, side) for image in images]
        return [FrameFeatures(p, None, torch.zeros(1, 1, 3), g) for p, g in zip(pictures, sizes, strict=True)]

    def decode(
        self,
        features: Sequence[FrameFeatures],
        prompts: Sequence[PromptBatch],
        output: object = None,
        candidates: str = "",
    ) -> list[Masks]:
        self.asked += prompts
        count = 3 if candidates == "all" else 1
        answers = []
        for feature in features:
            rows, columns = feature.geometry.low_res_frame
            small = torch.nn.functional.interpolate(feature.embedding[None, :1], (rows, columns), mode="area")[0]
            logits = torch.full((1, count, *feature.geometry.low_res), -10.0)
            logits[..., :rows, :columns] = (small - 100) / 10
            answers.append(Masks(logits, torch.ones(1, count), feature.geometry))
        return answers


class SeesBetterFromNear(SeesBright):
    """On the whole frame its masks have this quality, on crops quality 1; there only what is brighter counts."""

    def __init__(self, quality: float, darker: float = 0.0) -> None:
        super().__init__()
        self.quality, self.darker = quality, darker

    def decode(self, features: Sequence[FrameFeatures], *args: object, **options: object) -> list[Masks]:  # type: ignore[override]
        answers = super().decode(features, *args, **options)  # type: ignore[arg-type]
        near = [float(feature.geometry.original != FRAME) for feature in features]
        return [
            Masks(answer.logits - self.darker * n, answer.iou * max(n, self.quality), answer.geometry)
            for answer, n in zip(answers, near, strict=True)
        ]


def box(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(FRAME, np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def clicks(*on: tuple[float, float], off: Sequence[tuple[float, float]] = (), object_id: int = 1) -> Prompt:
    return Prompt(0, object_id, points=(*on, *off), point_labels=(1,) * len(on) + (0,) * len(off))


def drawn(bright: np.ndarray, prompt: Prompt, shown: dict[int, np.ndarray] | None = None) -> np.ndarray:
    sam = SeesBright()
    image = np.repeat(bright[..., None].astype(np.uint8) * 255, 3, 2)
    (features,) = sam.encode([image])
    (mask,) = draw_prompts(sam, image, features, [prompt], "never", shown)  # type: ignore[arg-type]
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


LEFT, RIGHT = box(40, 40, 200, 200), box(300, 40, 460, 200)


def test_a_click_keeps_the_connected_part_under_it() -> None:
    assert iou(drawn(LEFT | RIGHT, clicks((100, 100))), LEFT) > 0.95
    assert iou(drawn(LEFT | RIGHT, clicks((100, 100), (400, 100))), LEFT | RIGHT) > 0.95
    assert iou(drawn(LEFT | RIGHT, Prompt(0, 1, box=(30, 30, 470, 210))), LEFT | RIGHT) > 0.95


def test_a_click_on_a_small_thing_looks_at_a_crop_of_it() -> None:
    row = np.zeros(FRAME, np.bool_)
    for x in range(200, 400, 12):
        row |= box(x, 200, x + 10, 210)  # the gaps are too narrow for the whole frame
    one = box(296, 200, 306, 210)
    sam = SeesBetterFromNear(0.4)
    image = np.repeat(row[..., None].astype(np.uint8) * 255, 3, 2)
    (features,) = sam.encode([image])
    click = clicks((301, 205))
    assert iou(draw_object(sam, image, features, click, "never").mask, one) < 0.5  # type: ignore[arg-type]
    assert iou(draw_object(sam, image, features, click, "always").mask, one) > 0.7  # type: ignore[arg-type]


def test_a_click_is_drawn_again_from_the_box_of_what_it_hits() -> None:
    class TimidWithoutBoxes(SeesBright):
        """Clicks alone give the brightest part only, a box all that is bright in it."""

        def decode(self, features, prompts, output=None, candidates="") -> list[Masks]:  # type: ignore[no-untyped-def]
            answers = super().decode(features, prompts, output, candidates)
            timid = [10.0 * (p.boxes is None) for p in prompts]
            return [Masks(a.logits - t, a.iou, a.geometry) for a, t in zip(answers, timid, strict=True)]

    picture = LEFT * 160 + box(55, 55, 185, 185) * np.uint8(95)
    image = np.repeat(picture[..., None].astype(np.uint8), 3, 2)
    sam = TimidWithoutBoxes()
    (features,) = sam.encode([image])
    (mask,) = draw_prompts(sam, image, features, [clicks((100, 100))], "always")  # type: ignore[arg-type]
    assert iou(mask, LEFT) > 0.9
    last = sam.asked[-1]
    assert last.boxes is not None and last.points is not None and last.masks is None


def test_a_correction_adds_what_was_clicked_and_loses_nothing() -> None:
    before = box(100, 40, 200, 200) | box(500, 300, 560, 400)  # the network does not see the second part
    after = drawn(LEFT | RIGHT, clicks((60, 100)), {1: before})
    assert not (before & ~after).any()
    assert iou(after, LEFT | before) > 0.95


def test_a_click_that_agrees_with_the_mask_changes_nothing() -> None:
    before = box(50, 50, 180, 220)
    after = drawn(LEFT | RIGHT, clicks((100, 100), off=[(600, 400)]), {1: before})
    assert np.array_equal(after, before)


def test_a_click_on_the_background_takes_away_what_it_hits() -> None:
    leak = box(200, 100, 300, 140)
    after = drawn(LEFT, clicks(off=[(250, 120)]), {1: LEFT | leak})
    assert iou(after, LEFT) > 0.95


@pytest.mark.parametrize("bright", [LEFT | RIGHT, LEFT | RIGHT | box(200, 100, 300, 140)])
def test_a_click_on_the_background_takes_away_what_the_network_would_keep(bright: np.ndarray) -> None:
    after = drawn(bright, clicks(off=[(400, 100)]), {1: bright})
    assert not after[100, 400]
    assert after[100, 100]


@pytest.mark.parametrize("bright", [RIGHT, LEFT | RIGHT])
def test_a_click_on_the_background_never_takes_most_of_an_object(bright: np.ndarray) -> None:
    """Neither where the network would drop it, nor where a crumb beside it is all that would be left."""
    before = LEFT | box(300, 300, 304, 304)
    place = tuple(int(v) for v in np.argwhere(LEFT)[0][::-1])
    after = drawn(bright, clicks(off=[place]), {1: before})
    assert not after[place[1], place[0]] and after.sum() > 0.8 * before.sum()


def test_a_correction_sees_the_mask_and_the_clicks_together() -> None:
    sam = SeesBright()
    image = np.repeat(LEFT[..., None].astype(np.uint8) * 255, 3, 2)
    (features,) = sam.encode([image])
    shown = {1: box(100, 40, 200, 200)}
    draw_prompts(sam, image, features, [clicks((60, 100))], "auto", shown)  # type: ignore[arg-type]
    first = sam.asked[0]
    assert first.masks is not None and first.points is not None
    assert first.masks[0, 20, 30] > 2 > -2 > first.masks[0, 20, 10]  # cells of 5 pixels


def test_what_is_drawn_leaves_other_objects_alone_unless_they_are_clicked() -> None:
    other = box(180, 40, 200, 200)
    assert not (drawn(LEFT, clicks((60, 100)), {2: other}) & other).any()
    assert not (drawn(LEFT, clicks((60, 100)), {1: box(100, 40, 180, 200), 2: other}) & other).any()
    assert (drawn(LEFT, clicks((60, 100), (190, 100)), {2: other}) & other).sum() > 0.9 * other.sum()


def test_a_box_draws_behind_smaller_objects_and_in_front_of_larger_ones() -> None:
    rider, horse = box(100, 60, 140, 120), box(0, 0, 400, 400)
    assert not (drawn(LEFT, Prompt(0, 1, box=(40, 40, 200, 200)), {2: rider}) & rider).any()
    assert iou(drawn(LEFT, Prompt(0, 1, box=(40, 40, 200, 200)), {2: horse}), LEFT) > 0.95


def test_clicks_that_lead_to_nothing_are_errors() -> None:
    with pytest.raises(UsageError, match="object 1 on frame 0: at least one click must be on the object"):
        drawn(LEFT, clicks(off=[(100, 100)]))
    with pytest.raises(UsageError, match="object 1 on frame 0: no object is found at"):
        drawn(box(0, 0, 0, 0), clicks((100, 100)))


def test_a_look_sees_the_mirror_image_as_well() -> None:
    sam = tiny_sam()
    image = np.random.default_rng(5).integers(0, 255, (72, 96, 3), np.uint8)
    asked = PromptBatch(
        boxes=np.array([[10, 20, 60, 50]], np.float32),
        points=np.array([[[30, 33]]], np.float32),
        labels=np.ones((1, 1)),
    )
    ((logits, quality, _),) = click_views._look(sam, image, asked, None)
    mirror = np.ascontiguousarray(image[:, ::-1])
    ((other, same, _),) = click_views._look(sam, mirror, click_views._mirrored(asked, 96), None)
    torch.testing.assert_close(other.flip(-1), logits, atol=1e-4, rtol=0)
    assert float(same) == pytest.approx(float(quality), abs=1e-5)
    ((once, _, _),) = click_views._look(sam, image, asked, None, mirrored=False)
    assert not torch.allclose(once, logits, atol=1e-2)


class SeesPartsToo(SeesBright):
    """A network whose candidates are what is very bright, all that is bright, and that again."""

    def decode(self, *args: object, **options: object) -> list[Masks]:
        answers = super().decode(*args, **options)  # type: ignore[arg-type]
        for answer in answers:
            answer.logits[:, 0] -= 8
        return answers


@pytest.mark.parametrize("likes", [1.0, -1.0])
def test_of_the_meanings_of_a_click_the_judge_of_objects_chooses(likes: float) -> None:
    sam = SeesPartsToo()
    sam.objectness = Objectness(3)
    with torch.no_grad():
        sam.objectness.weight.zero_()
        sam.objectness.weight[0, -SHAPE + 2] = 4 * likes  # the logarithm of the area
        sam.objectness.bias.fill_(12 * likes)  # even at a twentieth of the frame
    image = np.zeros((*FRAME, 3), np.uint8)
    image[100:380, 100:400] = 150
    image[200:280, 200:280] = 255
    (features,) = sam.encode([image])
    drawn = draw_object(sam, image, features, clicks((240, 240)), "never").mask  # type: ignore[arg-type]
    assert iou(drawn, box(100, 100, 400, 380) if likes > 0 else box(200, 200, 280, 280)) > 0.9


@pytest.mark.parametrize(("quality", "expected"), [(0.8, "whole"), (0.5, "part")])
def test_what_only_a_crop_shows_must_be_better_to_be_meant(quality: float, expected: str) -> None:
    image = np.zeros((*FRAME, 3), np.uint8)
    image[150:330, 150:330] = 150
    image[200:280, 200:280] = 255
    sam = SeesBetterFromNear(quality, darker=10.0)
    (features,) = sam.encode([image])
    view = click_views.best_view(
        sam,  # type: ignore[arg-type]
        image,
        features,
        PromptBatch(points=np.array([[[240, 240]]], np.float32), labels=np.ones((1, 1))),
        [(240, 240)],
        "always",
        None,
    )
    assert iou(view.mask, {"whole": box(150, 150, 330, 330), "part": box(200, 200, 280, 280)}[expected]) > 0.9
