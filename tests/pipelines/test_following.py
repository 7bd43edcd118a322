"""Following objects in either direction: for runs, the page and the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from toys import DriftMasks, frames, tiny_sam
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg_pipelines.build import Models
from vidseg_pipelines.following import follow
from vidseg_pipelines.frame_steps import FrameStep
from vidseg_pipelines.refiner import RefineOptions, Refiner

COUNT, HEIGHT, WIDTH = 8, 48, 64
INFO = VideoInfo(WIDTH, HEIGHT, 24, frame_count=COUNT)  # type: ignore[arg-type]


class Notes(DriftMasks):
    """Notes the numbers of frames and prompts that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[tuple[int, int]]]] = []

    def step(self, frame: Frame, prompts: Any = ()) -> Any:
        self.seen.append((frame.index, [(p.frame_index, p.object_id) for p in prompts]))
        return super().step(frame, prompts)


def square(y: int, x: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def models(tracker: Any) -> Models:
    sam = tiny_sam()
    return Models(tracker, sam, Refiner(sam, RefineOptions("none")))


def test_frames_and_results_keep_their_numbers_and_trackers_see_growing_ones() -> None:
    prompts = {6: [Prompt(6, 4, mask=square(5, 5), label="cat")], 3: [Prompt(3, 2, mask=square(30, 30))]}
    for backward, order in ((True, [6, 5, 3, 2]), (False, [3, 4, 6, 7])):
        tracker, clip = Notes(), frames(COUNT, HEIGHT, WIDTH)
        steps = (FrameStep(clip[i], prompts.get(i, ())) for i in order)
        results = list(follow(models(tracker), INFO, steps, backward=backward))
        assert [(frame.index, masks.frame_index) for frame, masks in results] == [(i, i) for i in order]
        assert all(frame.rgb is clip[frame.index].rgb for frame, _ in results)
        assert [masks.labels[-1] for _, masks in results if 4 in masks.ids] == ["cat"] * (4 if backward else 2)
        numbers = [number for number, _ in tracker.seen]
        assert numbers == ([0, 1, 3, 4] if backward else order)
        assert [p for _, given in tracker.seen for p in given] == ([(0, 4), (3, 2)] if backward else [(3, 2), (6, 4)])


def test_of_objects_that_were_found_as_many_are_followed_as_may_be() -> None:
    clip = frames(COUNT, HEIGHT, WIDTH)
    found = [(Prompt(5, i, mask=square(0, 12 * i)), "dog") for i in (1, 2, 3)]

    def steps() -> Iterator[FrameStep]:
        yield FrameStep(clip[5], [Prompt(5, 9, mask=square(30, 0))], found=found)
        yield FrameStep(clip[4])

    results = [masks for _, masks in follow(models(DriftMasks()), INFO, steps(), backward=True, max_objects=3)]
    assert [masks.ids for masks in results] == [(1, 2, 9)] * 2
    assert results[1].labels == ("dog", "dog", None)


@pytest.mark.parametrize("backward", [False, True])
def test_without_a_frame_there_is_no_result(backward: bool) -> None:
    assert list(follow(models(DriftMasks()), INFO, [], backward=backward)) == []
