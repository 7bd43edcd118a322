"""Two things at once: what the tracker says of the next frames, and the masks of those before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from toys import KeepMasks, tiny_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Frame, Prompt, Tracker, Tracks, VideoInfo
from vidseg_pipelines import streaming
from vidseg_pipelines.made_of import MadeOf
from vidseg_pipelines.overlap import InTurn, LooksAhead, Overlap, overlaps
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter
from vidseg_pipelines.snapshot import Snapshot, Snapshots
from vidseg_pipelines.streaming import Preempted, stream
from vidseg_trackers.mask_tracking.tracker import Look
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.tracker import XMemTracker
from xmem_rule import TOY, toy_network, toy_video

HEIGHT, WIDTH = 64, 80
WAIT = 30.0


def xmem() -> XMemTracker:
    return XMemTracker(toy_network(), XMemOptions.from_mapping({"mem_every": 2}))


def segmenter(tracker: Tracker) -> Segmenter:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:40, 10:40] = True
    sam = tiny_sam()
    made = Segmenter(tracker, sam, Refiner(sam), prompts=[Prompt(0, 1, mask=mask), Prompt(6, 2, mask=mask[:, ::-1])])
    made.start(VideoInfo(WIDTH, HEIGHT, Fraction(25)))
    return made


class Results:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.masks: list[FrameMasks] = []

    def write(self, frame: Frame, masks: FrameMasks) -> None:
        assert frame.index == masks.frame_index
        self.masks.append(masks)

    def close(self) -> None: ...

    @property
    def lines(self) -> list[object]:
        return [(m.frame_index, m.ids, m.scores.tolist(), m.rles, m.signals) for m in self.masks]


class Taken(Snapshots):
    """Snapshots that stay in memory."""

    def __init__(self, every: int) -> None:
        super().__init__(Path(), Path(), MadeOf({"config": {}, "input": {}}, [], {}), every=every, next_frame=0)
        self.saved: list[Snapshot] = []

    def save(self, snapshot: Snapshot) -> None:
        self.saved.append(snapshot)


def run(
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,
    *,
    frames: Iterable[Frame] | None = None,
    advance: Callable[[Sequence[FrameMasks]], None] = lambda results: None,
    every: int = 8,
    tracker: Tracker | None = None,
) -> tuple[Results, Taken]:
    monkeypatch.setattr(streaming, "overlaps", lambda segmenter: at_once)
    sink, snapshots = Results(), Taken(every)
    made = segmenter(tracker or xmem())
    with contextlib.suppress(Preempted, ValueError):
        stream(frames or toy_video(23), made, [sink], batch=4, snapshots=snapshots, advance=advance)
    assert not [t for t in threading.enumerate() if t.name.startswith("vidseg-")]
    return sink, snapshots


def test_two_things_at_once_give_the_same_results_and_states(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    (turn, before), (both, after) = (
        run(monkeypatch, at_once, advance=lambda results: told.extend(m.frame_index for m in results))
        for at_once in (False, True)
    )
    assert turn.lines == both.lines and len(both.lines) == 23
    assert told == [*range(23), *range(23)]
    assert [s.next_frame for s in after.saved] == [s.next_frame for s in before.saved] == [8, 16]
    for one, other in zip(before.saved, after.saved, strict=True):
        assert one.state.keys() == other.state.keys()
        for name, value in one.state.items():
            np.testing.assert_array_equal(other.state[name], value, err_msg=name)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_first_frame_need_not_wait_for_a_whole_micro_batch(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    monkeypatch.setattr(streaming, "overlaps", lambda segmenter: at_once)
    (sizes, sink), (alone, first) = ([], Results()), ([], Results())
    stream(toy_video(10), segmenter(xmem()), [sink], batch=4, advance=lambda done: sizes.append(len(done)))
    stream(
        *(toy_video(10), segmenter(xmem()), [first]),
        batch=4,
        advance=lambda done: alone.append(len(done)),
        first_alone=True,
    )
    assert (sizes, alone) == ([4, 4, 2], [1, 3, 4, 2])
    assert first.lines == sink.lines


class Watched(XMemTracker):
    """Says when it has seen a frame, and which thread looks at which."""

    def __init__(self, last: int) -> None:
        super().__init__(toy_network())
        self.last, self.seen, self.looked = last, threading.Event(), dict[int, str]()

    def look(self, frame: Frame) -> Look:
        self.looked[frame.index] = threading.current_thread().name
        return super().look(frame)

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        found = super().step(frame, prompts)
        if frame.index == self.last:
            self.seen.set()
        return found


def test_masks_are_drawn_while_the_tracker_goes_on() -> None:
    """The first results are held up until the tracker has seen the frames after them."""
    tracker, waited = Watched(last=7), list[bool]()
    work = Overlap(segmenter(tracker), lambda result: waited.append(tracker.seen.wait(WAIT)))
    frames = toy_video(8)
    assert work.step(frames[:4]) == []
    assert [m.frame_index for m in work.step(frames[4:])] == [0, 1, 2, 3]
    assert [m.frame_index for m in work.finish()] == [4, 5, 6, 7]
    work.close()
    assert waited == [True] * 8
    assert set(tracker.looked) == {5, 6, 7}  # before the first frame nothing was followed


def test_a_look_that_has_not_begun_holds_nothing_up() -> None:
    tracker = Watched(last=7)
    work = Overlap(segmenter(tracker), lambda result: None)
    frames = toy_video(8)
    work.step(frames[:4])
    busy = work._thread.submit(tracker.seen.wait, WAIT)
    work.step(frames[4:])
    assert busy.result() and tracker.looked == dict.fromkeys((5, 6, 7), threading.current_thread().name)
    work.close()


@pytest.mark.parametrize("where", ["the source", "the tracker"])
def test_what_was_followed_before_an_error_is_written(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(XMemTracker):
        def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
            if where == "the tracker" and frame.index == 8:
                raise ValueError("broken")
            return super().step(frame, prompts)

    def frames() -> Iterable[Frame]:
        yield from toy_video(8)
        if where == "the source":
            raise ValueError("broken")
        yield from toy_video(12)[8:]

    sink, _ = run(monkeypatch, True, frames=frames(), tracker=Breaks(toy_network()))
    assert [m.frame_index for m in sink.masks] == list(range(8))


def test_a_preempted_run_keeps_the_state_after_all_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(results: Sequence[FrameMasks]) -> None:
        raise Preempted

    sink, snapshots = run(monkeypatch, True, advance=advance, every=100)
    assert [m.frame_index for m in sink.masks] == list(range(8))
    assert [s.next_frame for s in snapshots.saved] == [8]


def test_each_thread_has_half_of_the_cores() -> None:
    cores, had = torch.get_num_threads(), list[int]()

    def deliver(result: tuple[Frame, FrameMasks]) -> None:
        had.append(torch.get_num_threads())

    torch.set_num_threads(5)
    try:
        work = Overlap(segmenter(xmem()), deliver)
        work.step(toy_video(2))
        assert torch.get_num_threads() == 2
        work.close()
        assert torch.get_num_threads() == 5 and had == [2, 2]
    finally:
        torch.set_num_threads(cores)


def test_it_needs_several_cores_and_a_tracker_that_is_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    official = XMem(TOY)  # its encoder is of the official kind, whose features are large
    assert isinstance(xmem(), LooksAhead) and not XMemTracker(official.eval()).looks_ahead
    compact = xmem()
    monkeypatch.setattr(type(compact), "looks_ahead", True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert overlaps(segmenter(compact)) and not overlaps(segmenter(KeepMasks()))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not overlaps(segmenter(compact))
    assert InTurn(segmenter(KeepMasks()), lambda result: None).drain() == []
