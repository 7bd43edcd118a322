"""Objects that are found on the way: ids, limits, and what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from toys import KeepMasks, tiny_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Frame, Prompt, Proposal, State, Tracks, VideoInfo
from vidseg_pipelines.object_finder import MAX_GAP
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.segmenter import Segmenter

INFO = VideoInfo(16, 12, Fraction(24))


def square(y: int, x: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((12, 16), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


class Leaves(KeepMasks):
    """A tracker whose objects are seen on the ``stay`` frames from their prompt on and never again."""

    can_remove = True

    def __init__(self, stay: int = 1) -> None:
        super().__init__()
        self.stay = stay
        self.left: dict[int, int] = {}

    def start(self, video: VideoInfo) -> None:
        super().start(video)
        self.left = {}

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.left |= {p.object_id: self.stay for p in prompts}
        (tracks,) = super().step(frame, prompts)
        seen = [row for row, i in enumerate(tracks.ids.tolist()) if self.left[i] > 0]
        self.left = {i: left - 1 for i, left in self.left.items()}
        assert tracks.masks is not None
        return [
            Tracks(frame.index, tracks.ids[seen], tracks.boxes[seen], tracks.scores[seen], masks=tracks.masks[seen])
        ]

    def remove(self, ids: Sequence[int]) -> None:
        for i in ids:
            del self.masks[i], self.left[i]

    def state_dict(self) -> State:
        return {**super().state_dict(), **{f"left.{i}": left for i, left in self.left.items()}}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict({k: v for k, v in state.items() if not k.startswith("left.")})
        self.left = {int(k.removeprefix("left.")): int(v) for k, v in state.items() if k.startswith("left.")}


class SeesAlways:
    """A detector that always reports the same things."""

    def __init__(self, *masks: np.ndarray) -> None:
        self.masks, self.asked = masks, list[int]()

    def detect(self, frame: Frame) -> list[Proposal]:
        self.asked.append(frame.index)
        return [Proposal(mask, 0.9, "car") for mask in self.masks]


def segmenter(tracker: KeepMasks, detector: SeesAlways, **options: object) -> Segmenter:
    sam = tiny_sam()
    refiner = Refiner(sam, RefineOptions("none"))
    made = Segmenter(tracker, sam, refiner, detector=detector, **{"detect_every": 1, **options})  # type: ignore[arg-type]
    made.start(INFO)
    return made


def blank(index: int) -> Frame:
    return Frame(index, index, index / 24, np.zeros((12, 16, 3), np.uint8))


def step(made: Segmenter, index: int) -> FrameMasks:
    ((_, masks),) = made.step([blank(index)])
    return masks


def size_of(state: State) -> int:
    return sum(v.nbytes if isinstance(v, torch.Tensor) else len(str(v)) for v in state.values())


def test_2000_searches_whose_objects_all_leave_keep_the_number_of_objects_and_the_state_bounded() -> None:
    tracker = Leaves()
    made = segmenter(tracker, SeesAlways(square(1, 1), square(6, 9)), max_objects=5)
    ids: list[int] = []
    sizes = []
    for t in range(2000):
        ids += [i for i in step(made, t).ids if i not in ids[-5:]]
        assert len(tracker.masks) <= 5
        assert made.finder.followed == set(tracker.masks)
        state = made.state_dict()
        assert state is not None
        sizes.append(size_of(state))
    assert ids == list(range(1, len(ids) + 1))  # no id twice, none left out
    assert len(ids) > 255
    assert max(sizes[1000:]) <= max(sizes[:1000]) + 32  # longer numbers


def test_an_absent_object_keeps_its_place_for_a_while_and_longer_when_nobody_needs_it() -> None:
    tracker = Leaves()
    made = segmenter(tracker, SeesAlways(square(1, 1)), max_objects=1)
    assert step(made, 0).ids == (1,)
    assert [step(made, t).ids for t in range(1, MAX_GAP + 1)] == [()] * MAX_GAP
    assert step(made, MAX_GAP + 1).ids == (2,)
    assert set(tracker.masks) == {2}
    alone = Leaves()
    made = segmenter(alone, SeesAlways(square(1, 1)), max_objects=1, detect_every=0)
    for t in range(2 * MAX_GAP):
        step(made, t)
    assert set(alone.masks) == {1}


def test_without_room_nobody_searches() -> None:
    detector = SeesAlways(square(1, 1), square(6, 9))
    made = segmenter(KeepMasks(), detector, max_objects=2)
    for t in range(5):
        assert step(made, t).ids == (1, 2)
    assert detector.asked == [0]


def test_objects_of_the_user_count_and_are_not_forgotten() -> None:
    tracker = Leaves()
    prompts = [Prompt(0, 255, mask=square(1, 1))]
    made = segmenter(tracker, SeesAlways(square(6, 9)), max_objects=2, prompts=prompts)
    assert step(made, 0).ids == (255, 256)
    for t in range(1, 3 * MAX_GAP):
        step(made, t)
        assert len(tracker.masks) == 2 and 255 in tracker.masks


def test_a_corrected_object_is_not_counted_twice() -> None:
    detector = SeesAlways(square(1, 1), square(6, 9))
    prompts = [Prompt(0, 1, mask=square(1, 1)), Prompt(2, 1, mask=square(1, 2))]
    made = segmenter(KeepMasks(), detector, max_objects=2, detect_every=2, prompts=prompts)
    assert [step(made, t).ids for t in range(4)] == [(1, 2)] * 4
    made = segmenter(KeepMasks(), SeesAlways(square(6, 9)), max_objects=2, prompts=prompts)
    made.finder._next_search = 2  # the search meets the correction
    assert [step(made, t).ids for t in range(4)] == [(1,), (1,), (1, 2), (1, 2)]


def test_what_was_forgotten_stays_forgotten_after_a_resume() -> None:
    def fresh() -> Segmenter:
        return segmenter(Leaves(), SeesAlways(square(1, 1), square(6, 9)), max_objects=2)

    whole, first, second = fresh(), fresh(), fresh()
    expected = [step(whole, t) for t in range(3 * MAX_GAP)]
    for t in range(MAX_GAP + 5):
        step(first, t)
    state = first.state_dict()
    assert state is not None
    second.load_state_dict(state, MAX_GAP + 5)
    for t in range(MAX_GAP + 5, 3 * MAX_GAP):
        masks = step(second, t)
        assert (masks.ids, masks.labels) == (expected[t].ids, expected[t].labels)
