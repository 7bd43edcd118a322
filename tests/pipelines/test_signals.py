"""What is measured of masks while they are computed."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from toys import KeepMasks, frames, tiny_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import Signals
from vidseg.outputs import JournalSink, read_journal
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_pipelines.mask_signals import agreement, certainty
from vidseg_pipelines.references import References
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner
from vidseg_pipelines.segmenter import Segmenter

HW = 72, 128


def square(y: int, x: int, side: int = 20) -> np.ndarray:
    mask = np.zeros(HW, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def tracks_of(maps: torch.Tensor) -> Tracks:
    n = len(maps)
    boxes = np.tile(np.array([[32, 16, 96, 56]], np.float32), (n, 1))
    return Tracks(0, np.arange(1, n + 1), boxes, np.ones(n, np.float32), masks=maps, exclusive=False)


def edge(softness: float, size: tuple[int, int] = HW) -> torch.Tensor:
    """Probabilities of a box whose outline is ``softness`` of the frame's height wide."""
    y = torch.linspace(0, 1, size[0])[:, None]
    x = torch.linspace(0, 128 / 72, size[1])[None]
    inside = torch.minimum(torch.minimum(y - 16 / 72, 56 / 72 - y), torch.minimum(x - 32 / 72, 96 / 72 - x))
    return torch.sigmoid(inside / softness)


def test_a_sharp_outline_is_more_certain_than_a_soft_one_at_any_resolution() -> None:
    maps = torch.stack([edge(0.0005), edge(0.01), edge(0.1)])
    sharp, soft, softer = certainty(tracks_of(maps), HW).tolist()
    assert sharp > 8000 > soft > softer
    fine = torch.stack([edge(0.01, (288, 512))])
    assert certainty(tracks_of(fine), HW).tolist()[0] == pytest.approx(soft, abs=400)


def test_certainty_looks_at_the_outline_alone() -> None:
    unsure_inside = edge(0.0005)
    unsure_inside[30:42, 50:78] = 0.6
    assert (
        certainty(tracks_of(unsure_inside[None]), HW).tolist() == certainty(tracks_of(edge(0.0005)[None]), HW).tolist()
    )
    assert certainty(tracks_of(torch.zeros(1, *HW)), HW).tolist() == [-1]


def test_agreement_counts_cells() -> None:
    a, b = torch.full((1, 10, 10), -1.0), torch.full((1, 10, 10), -1.0)
    a[0, :4, :4], b[0, 2:5, :4] = 1, 1
    assert agreement(a, b, None).tolist() == [[8, 20, 3, 4, -1]]
    assert agreement(a, b, torch.tensor([[0.81236]])).tolist() == [[8, 20, 3, 4, 8124]]


class Creep(KeepMasks):
    """Its masks move and grow to the right by two pixels per frame."""

    def step(self, frame: Frame, prompts: tuple[Prompt, ...] = ()) -> list[Tracks]:  # type: ignore[override]
        self.masks = {i: mask | np.roll(mask, 2, 1) for i, mask in self.masks.items()}
        return super().step(frame, prompts)


def run(mode: Mode, count: int, prompts: list[Prompt], cut: int | None = None) -> list[FrameMasks]:
    """Results; with ``cut`` the state goes over to another segmenter before that frame."""
    sam, clip = tiny_sam(), frames(count)
    tracker = Creep()

    def make() -> Segmenter:
        segmenter = Segmenter(tracker, sam, Refiner(sam, RefineOptions(mode, zoom="never")), prompts=prompts)
        segmenter.start(VideoInfo(128, 72, Fraction(24)))
        return segmenter

    segmenter = make()
    results: list[FrameMasks] = []
    for frame in clip:
        if frame.index == cut:
            state, masks = segmenter.state_dict(), tracker.masks
            assert state is not None
            segmenter = make()
            segmenter.load_state_dict(state, cut)
            tracker.masks = masks
        results += [masks for _, masks in segmenter.step([frame])]
    return results


def signals_of(result: FrameMasks, object_id: int) -> Signals:
    signals = result.signals[result.ids.index(object_id)]
    assert signals is not None
    return signals


@pytest.mark.parametrize(("mode", "unknown"), [("auto", set()), ("box", set()), ("none", {"tracker_iou", "hq_iou"})])
def test_everything_is_measured_that_can_be(mode: Mode, unknown: set[str]) -> None:
    last = run(mode, 3, [Prompt(0, 1, mask=square(10, 10, 40))])[-1]
    assert last.ids == (1,)
    missing = {f.name for f in fields(Signals)} - signals_of(last, 1).to_dict().keys()
    assert missing == unknown | {"backward"}  # a mark, for masks of the way back alone


def test_changes_are_counted_from_the_last_correction_of_each_object() -> None:
    prompts = [
        Prompt(0, 1, mask=square(10, 10)),
        Prompt(0, 2, mask=square(40, 10)),
        Prompt(2, 2, mask=square(40, 60, 10)),
    ]
    results = run("none", 4, prompts)
    assert [signals_of(r, 1).since for r in results] == [0, 1, 2, 3]
    assert [signals_of(r, 2).since for r in results] == [0, 1, 0, 1]
    assert [signals_of(r, 1).area_change for r in results] == [1.0, 1.1, 1.2, 1.3]
    assert [signals_of(r, 2).area_change for r in results] == [1.0, 1.1, 1.0, 1.2]
    assert [signals_of(r, 2).area_jump for r in results] == [None, 1.1, 0.2273, 1.2]
    assert signals_of(results[1], 1).box_change == pytest.approx(1 - 20 / 22, abs=1e-4)
    assert [r.signals[0].corrected for r in results if r.signals[0]] == [True, False, False, False]


def test_other_colours_are_another_look() -> None:
    references, mask = References(), square(10, 10)
    looks = []
    for index, color in enumerate([(200, 30, 30), (200, 30, 30), (30, 30, 200)]):
        rgb = np.zeros((*HW, 3), np.uint8)
        rgb[mask] = color
        frame = Frame(index, index, index / 24, rgb)
        places = {1: (slice(None), slice(None))}
        result = FrameMasks.from_label_map(frame, mask.astype(np.uint8), [1], np.ones(1, np.float32), [None], places)
        looks.append(signals_of(references.compare(frame, result, {1} if not index else (), {1}), 1).look_change)
    assert looks == [0.0, 0.0, 1.0]


def test_references_go_over_to_a_resumed_run_and_end_with_their_objects() -> None:
    prompts = [Prompt(0, 1, mask=square(10, 10)), Prompt(1, 2, mask=square(40, 10))]
    whole = run("auto", 5, prompts)
    for cut in (1, 2, 4):
        assert [r.signals for r in run("auto", 5, prompts, cut)] == [r.signals for r in whole]
    references = References()
    frame = frames(1)[0]
    label_map = square(10, 10).astype(np.uint8)
    places = {1: (slice(None), slice(None))}
    shown = FrameMasks.from_label_map(frame, label_map, [1], np.ones(1, np.float32), [None], places)
    empty = FrameMasks.from_label_map(frame, 0 * label_map, [], np.ones(0, np.float32), [], {})
    references.compare(frame, shown, {1}, {1})
    references.compare(frame, empty, (), {1})
    assert set(references.state_dict()) == {"looks.1"}
    references.compare(frame, empty, (), ())
    assert references.state_dict() == {}


def test_the_journal_keeps_them(tmp_path: Path) -> None:
    clip, results = frames(3), run("auto", 3, [Prompt(0, 1, mask=square(10, 10, 40))])
    sink = JournalSink(tmp_path / "masks.jsonl")
    for frame, result in zip(clip, results, strict=True):
        sink.write(frame, result)
    sink.close()
    assert [r.signals for r in read_journal(tmp_path / "masks.jsonl")] == [r.signals for r in results]
