from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from toys import BoxesEverywhere, EncoderCounter, KeepMasks, frames, tiny_sam
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode
from vidseg.types import Frame, Prompt, Proposal, Tracker, Tracks, VideoInfo
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.discovery import new_prompts
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner
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
def test_encoder_runs_once_per_frame_with_objects_however_many(objects: int) -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    results = list(segment_frames(frames(7), tracker=BoxesEverywhere(objects), model=sam, refine="box", batch=3))
    assert counter.images == (7 if objects else 0)
    assert [r.frame_index for r in results] == list(range(7))


def test_prompts_and_search_do_not_encode_a_frame_twice() -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    prompts = [Prompt(0, 1, box=(10, 10, 60, 60)), Prompt(2, 2, points=((90, 40),), point_labels=(1,))]
    list(segment_frames(frames(5), tracker=KeepMasks(), model=sam, prompts=prompts, batch=2, zoom="never"))
    assert counter.images == 5
    counter.images = 0
    list(segment_frames(frames(5), tracker=KeepMasks(), model=sam, batch=5, zoom="never"))
    assert counter.images == 5  # the search on the first frame shares its features with the masks


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


class TwoOnOnePlace(BoxesEverywhere):
    """Two objects in the same box, up to frame ``until``; then one."""

    def __init__(self, until: int) -> None:
        super().__init__(2)
        self.until = until

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.count = 2 if frame.index < self.until else 1
        (tracks,) = super().step(frame, prompts)
        return [replace(tracks, boxes=np.repeat(tracks.boxes[:1], self.count, axis=0))]


@pytest.mark.parametrize(("until", "share"), [(0, None), (1, "1 of 13"), (12, "12 of 24")])
def test_boxes_that_give_no_mask_are_counted(until: int, share: str | None) -> None:
    sam = tiny_sam()
    segmenter = Segmenter(TwoOnOnePlace(until), sam, Refiner(sam, RefineOptions("box")))
    segmenter.start(INFO)
    segmenter.step(frames(4))
    again = Segmenter(TwoOnOnePlace(until), sam, Refiner(sam, RefineOptions("box")))
    again.start(INFO)
    state = segmenter.state_dict()
    assert state is not None
    again.load_state_dict(state, 4)
    again.step(frames(12)[4:])
    few = share is not None and share.startswith("1 ")
    text = [f"{share} boxes gave no mask: nothing in them, or hidden by other objects"] if share else []
    assert (again.notes, again.warnings) == ((text, []) if few else ([], text))


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
    segmenter = Segmenter(Delayed(), sam, Refiner(sam), prompts=[Prompt(0, 1, mask=square(9, 9))])
    segmenter.start(INFO)
    segmenter.step(frames(1))
    assert segmenter.state_dict() is None


def test_prompts_for_new_objects_only() -> None:
    def box(x1: int, x2: int) -> np.ndarray:
        mask = np.zeros((10, 100), bool)
        mask[:, x1:x2] = True
        return mask

    found = [Proposal(box(x, x + 20), 0.9, "cat") for x in (0, 8, 16, 50, 75)]
    prompts = [p for p, _ in new_prompts(found, 7, first_id=4, known=[(box(70, 100), None)], max_objects=3)]
    assert [(p.frame_index, p.object_id) for p in prompts] == [(7, 4), (7, 5), (7, 6)]
    masks = [p.mask for p in prompts]
    assert np.array_equal(masks[0], box(0, 20))
    assert np.array_equal(masks[1], box(20, 36))  # (8, 28) is mostly taken, (16, 36) loses what is
    assert np.array_equal(masks[2], box(50, 70))
    assert len(new_prompts(found, 7, first_id=1, max_objects=2)) == 2


class Sees:
    """A detector that reports a fixed list of proposals per frame."""

    def __init__(self, frames: dict[int, list[Proposal]]) -> None:
        self.frames, self.asked = frames, list[int]()

    def detect(self, frame: Frame) -> list[Proposal]:
        self.asked.append(frame.index)
        return self.frames.get(frame.index, [])


def test_a_detector_finds_the_objects_and_their_classes() -> None:
    detector = Sees({0: [Proposal(square(10, 10), 0.9, "cat"), Proposal(square(40, 80), 0.8, "dog")]})
    results = run(KeepMasks(), 3, batch=2, mode="none", detector=detector)
    assert [r.ids for r in results] == [(1, 2)] * 3
    assert results[2].labels == ("cat", "dog")
    assert detector.asked == [0]


def test_new_objects_get_new_ids_every_n_frames_and_known_ones_stay() -> None:
    both = [Proposal(square(10, 10), 0.9, "cat"), Proposal(square(40, 80), 0.8, "dog")]
    detector = Sees({0: both[:1], 4: both, 8: both})
    results = run(KeepMasks(), 10, batch=3, mode="none", detector=detector, detect_every=4)
    assert detector.asked == [0, 4, 8]
    assert [r.ids for r in results] == [(1,)] * 4 + [(1, 2)] * 6
    assert results[9].labels == ("cat", "dog")


def test_at_most_max_objects_are_followed() -> None:
    detector = Sees({0: [Proposal(square(10, 10), 0.9), Proposal(square(40, 80), 0.8)]})
    assert run(KeepMasks(), 1, batch=1, mode="none", detector=detector, max_objects=1)[0].ids == (1,)


def test_detection_goes_on_after_a_resume_as_without_it() -> None:
    both = [Proposal(square(10, 10), 0.9, "cat"), Proposal(square(40, 80), 0.8, "dog")]
    sam, seen = tiny_sam(), {0: both[:1], 4: both, 8: both}

    def fresh() -> Segmenter:
        segmenter = Segmenter(
            KeepMasks(), sam, Refiner(sam, RefineOptions("none")), detector=Sees(seen), detect_every=4
        )
        segmenter.start(INFO)
        return segmenter

    inputs = frames(10)
    whole = fresh()
    expected = whole.step(inputs)
    first = fresh()
    first.step(inputs[:4])
    state = first.state_dict()
    assert state is not None
    second = fresh()
    second.load_state_dict(state, 4)
    assert [m.labels for _, m in second.step(inputs[4:])] == [m.labels for _, m in expected[4:]]
    assert second.state_dict() is not None


def test_given_masks_are_disjoint_the_smaller_in_front_and_the_tracker_gets_the_same() -> None:
    tracker = KeepMasks()
    prompts = [Prompt(0, 1, mask=square(10, 10, 40)), Prompt(0, 2, mask=square(20, 20, 10))]
    first, second = run(tracker, 2, batch=2, mode="none", prompts=prompts)
    for result in (first, second):
        assert result.ids == (1, 2)
        assert np.array_equal(decode(result.rles[0]), square(10, 10, 40) & ~square(20, 20, 10))
        assert np.array_equal(decode(result.rles[1]), square(20, 20, 10))
    assert np.array_equal(tracker.masks[1], decode(first.rles[0]))


def test_two_objects_with_one_mask_are_an_error() -> None:
    prompts = [Prompt(0, 3, mask=square(10, 10)), Prompt(0, 7, mask=square(10, 10))]
    with pytest.raises(UsageError, match=r"object 7 on frame 0: its whole mask belongs to object 3 too"):
        run(KeepMasks(), 1, batch=1, prompts=prompts)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([Prompt(1, 1, box=(200, 5, 300, 40))], "object 1 on frame 1: box 200,5,300,40 lies outside the frame"),
        ([Prompt(1, 1, points=((5, 72),), point_labels=(1,))], "point 5,72 lies outside the frame, which is 128x72"),
        ([Prompt(1, 1, mask=np.ones((10, 12), np.bool_))], "the mask has 12x10 pixels, the frame 128x72"),
        ([Prompt(1, 1, mask=np.zeros((72, 128), np.bool_))], "the mask is empty"),
        ([Prompt(1, 2, mask=square(1, 1)), Prompt(1, 2, box=(1, 1, 9, 9))], "object 2 on frame 1 is given twice"),
    ],
)
def test_prompts_that_do_not_fit_their_frame_are_errors_for_every_tracker(prompts: list[Prompt], message: str) -> None:
    tracker = KeepMasks()
    with pytest.raises(UsageError, match=message):
        run(tracker, 2, batch=2, prompts=prompts)
    assert tracker.steps == 0  # nothing was begun


def test_an_offline_tracker_is_refined_in_batches() -> None:
    class Offline(BoxesEverywhere):
        lookahead = 10**9

        def __init__(self) -> None:
            super().__init__(2)
            self.held: list[Frame] = []

        def step(self, frame, prompts=()):  # type: ignore[no-untyped-def]
            self.held.append(frame)
            return []

        def finish(self):  # type: ignore[no-untyped-def]
            return [t for frame in self.held for t in super(Offline, self).step(frame)]

    sam, sizes = tiny_sam(), list[int]()
    sam.image_encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    results = list(segment_frames(frames(11), tracker=Offline(), model=sam, refine="box", batch=4))
    assert sizes == [4, 4, 3]
    assert [r.frame_index for r in results] == list(range(11))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detect_every": 5}, "finds objects automatically: leave out --detect-every"),
        ({"detector": object()}, "leave out --detect-with"),
        ({"mode": "none"}, "gives boxes only"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_start(options: dict[str, object], message: str) -> None:
    class Boxes(BoxesEverywhere):
        gives_masks = False

    sam = tiny_sam()
    refiner = Refiner(sam, RefineOptions(options.pop("mode", "auto")))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        Segmenter(Boxes(1), sam, refiner, **options)  # type: ignore[arg-type]


def test_a_correction_gets_the_mask_of_its_frame_and_leaves_the_tracker_as_it_was() -> None:
    class Drifts(KeepMasks):
        def step(self, frame, prompts=()):  # type: ignore[no-untyped-def]
            self.masks = {i: np.roll(m, 1, axis=1) for i, m in self.masks.items()}
            return super().step(frame, prompts)

    sam, tracker = tiny_sam(), Drifts()
    refiner = Refiner(sam, RefineOptions("none"))
    asked: list[dict[int, np.ndarray]] = []

    def draw(frame, features, prompts, shown):  # type: ignore[no-untyped-def]
        asked.append(shown)
        return [square(0, 0) for _ in prompts]

    refiner.draw = draw  # type: ignore[method-assign]
    prompts = [
        Prompt(0, 1, mask=square(10, 10)),
        Prompt(0, 2, mask=square(40, 40)),
        Prompt(3, 1, points=((12, 12),), point_labels=(1,)),
    ]
    segmenter = Segmenter(tracker, sam, refiner, prompts=prompts)
    segmenter.start(INFO)
    results = [masks for _, masks in segmenter.step(frames(5))]
    assert np.array_equal(asked[0][1], square(10, 13))
    assert np.array_equal(asked[0][2], square(40, 43))
    assert tracker.steps == 5
    assert np.array_equal(decode(results[3].rles[0]), square(0, 0))
    assert np.array_equal(decode(results[4].rles[1]), square(40, 44))  # moved once per frame
