from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from toys import BoxesEverywhere, EncoderCounter, KeepMasks, frames, tiny_sam
from vidseg.errors import UsageError
from vidseg.masks.rle import decode
from vidseg.sam.refiner import Mode, RefineOptions, Refiner
from vidseg.types import FrameMasks, Prompt, Tracker, VideoInfo
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.segmenter import Segmenter

INFO = VideoInfo(128, 72, Fraction(24))


def run(tracker: Tracker, count: int, batch: int, mode: Mode = "box", **options: object) -> list[FrameMasks]:
    sam = tiny_sam()
    segmenter = Segmenter(tracker, sam, Refiner(sam, RefineOptions(mode)), **options)  # type: ignore[arg-type]
    segmenter.start(INFO)
    inputs = frames(count)
    results = [m for at in range(0, count, batch) for _, m in segmenter.step(inputs[at : at + batch])]
    return results + [m for _, m in segmenter.finish()]


def square(y: int, x: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((72, 128), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.mark.parametrize("objects", [0, 1, 50])
def test_encoder_runs_once_per_frame_however_many_objects(objects: int) -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    results = list(segment_frames(frames(7), tracker=BoxesEverywhere(objects), model=sam, refine="box", batch=3))
    assert counter.images == 7
    assert [r.frame_index for r in results] == list(range(7))


def test_prompts_and_search_do_not_encode_a_frame_twice() -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    prompts = [Prompt(0, 1, box=(10, 10, 60, 60)), Prompt(2, 2, points=((90, 40),), point_labels=(1,))]
    list(segment_frames(frames(5), tracker=KeepMasks(), model=sam, prompts=prompts, batch=2))
    assert counter.images == 5
    counter.images = 0
    list(segment_frames(frames(5), tracker=KeepMasks(), model=sam, batch=5))
    assert counter.images == 5


def test_batches_of_frames_give_the_same_masks_as_single_frames() -> None:
    one = run(BoxesEverywhere(3), 6, batch=1)
    many = run(BoxesEverywhere(3), 6, batch=4)
    for a, b in zip(one, many, strict=True):
        assert a.ids == b.ids
        for ra, rb in zip(a.rles, b.rles, strict=True):
            assert np.count_nonzero(decode(ra) ^ decode(rb)) <= 2  # rounding at the threshold


def test_masks_are_disjoint_and_boxes_are_tight() -> None:
    for result in run(BoxesEverywhere(4), 3, batch=3):
        masks = [decode(r) for r in result.rles]
        assert masks
        assert np.sum(masks, axis=0).max() <= 1
        for mask, box in zip(masks, result.boxes, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("mode", ["auto", "box", "none"])
def test_a_given_mask_is_returned_as_it_was_given(mode: Mode) -> None:
    prompts = [Prompt(0, 4, mask=square(10, 10)), Prompt(0, 7, mask=square(40, 80))]
    first = run(KeepMasks(), 2, batch=2, mode=mode, prompts=prompts)[0]
    assert first.ids == (4, 7)
    assert (decode(first.rles[0]) == prompts[0].mask).all()
    assert (decode(first.rles[1]) == prompts[1].mask).all()


def test_without_refinement_the_trackers_masks_come_out() -> None:
    results = run(KeepMasks(), 3, batch=2, mode="none", prompts=[Prompt(0, 1, mask=square(10, 10))])
    assert (decode(results[2].rles[0]) == square(10, 10)).all()


def test_auto_keeps_the_trackers_mask_where_the_network_disagrees() -> None:
    results = run(KeepMasks(), 3, batch=1, mode="auto", prompts=[Prompt(0, 1, mask=square(10, 10))])
    assert (decode(results[2].rles[0]) == square(10, 10)).all()  # random weights agree with nothing
    redrawn = run(KeepMasks(), 3, batch=1, mode="box", prompts=[Prompt(0, 1, mask=square(10, 10))])
    assert not (decode(redrawn[2].rles[0]) == square(10, 10)).all()


def test_boxes_alone_need_refinement() -> None:
    with pytest.raises(UsageError, match="gives boxes only"):
        run(BoxesEverywhere(1), 1, batch=1, mode="none")


def test_a_tracker_that_finds_objects_takes_no_prompts() -> None:
    with pytest.raises(UsageError, match="leave out the prompts"):
        run(BoxesEverywhere(1), 1, batch=1, prompts=[Prompt(0, 1, mask=square(1, 1))])


def test_late_prompts_are_given_on_their_frame() -> None:
    prompts = [Prompt(0, 1, mask=square(0, 0)), Prompt(3, 2, mask=square(40, 60))]
    results = run(KeepMasks(), 5, batch=2, mode="none", prompts=prompts)
    assert [r.ids for r in results] == [(1,), (1,), (1,), (1, 2), (1, 2)]


def test_state_is_none_while_frames_are_held_back() -> None:
    class Delayed(KeepMasks):
        def step(self, frame, prompts=()):  # type: ignore[no-untyped-def]
            self.held = super().step(frame, prompts)
            return []

    sam = tiny_sam()
    segmenter = Segmenter(Delayed(), sam, Refiner(sam))
    segmenter.start(INFO)
    segmenter.step(frames(1))
    assert segmenter.state_dict() is None
