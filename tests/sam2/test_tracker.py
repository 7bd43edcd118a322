"""The causal SAM 2 tracker: the published numbers where both do the same, bounded memory, corrections that last."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from fake_device import FakeDevice, on_device
from sam2_rule import Case, disc, frame
from vidseg.errors import InputError, UsageError
from vidseg.masks.boxes import mask_box
from vidseg.sam2.model import Sam2
from vidseg.types import Frame, Prompt, Tracks, VideoInfo
from vidseg_trackers.sam2.options import Sam2Options
from vidseg_trackers.sam2.predictor import Predictor
from vidseg_trackers.sam2.tracker import Sam2Tracker

SEED, HEIGHT, WIDTH = 3, 96, 144
INFO = VideoInfo(WIDTH, HEIGHT, 24)
OFFICIAL = Sam2Options(memory="official", memory_dtype="float32")


@cache
def network() -> Sam2:
    return Case("video_correction").network()


@cache
def picture(t: int) -> Frame:
    return Frame(t, t, t / 24, frame(SEED, t, HEIGHT, WIDTH))


def mask(t: int, number: int = 0) -> np.ndarray:
    return disc(SEED, t, HEIGHT, WIDTH, number)


def tracker(options: Sam2Options | None = None, frames: int | None = None) -> Sam2Tracker:
    made = Sam2Tracker(network(), options)
    made.start(VideoInfo(WIDTH, HEIGHT, 24, frame_count=frames))
    return made


def click(t: int, object_id: int, x: float, y: float, label: int = 1) -> Prompt:
    return Prompt(t, object_id, points=((x, y),), point_labels=(label,))


def only(tracks: list[Tracks]) -> Tracks:
    (one,) = tracks
    return one


def test_a_stream_gives_the_records_of_the_published_predictor() -> None:
    count = 9
    predictor = Predictor(network(), [picture(t).rgb for t in range(count)], memory_dtype=torch.float32)
    predictor.add_mask(0, 1, mask(0))
    predictor.add_points(0, 2, [[47, 64]], [1])
    expected = {output.frame: output.logits for output in predictor.propagate()}
    ours = tracker(OFFICIAL, frames=count)
    for t in range(count):
        prompts = [Prompt(0, 1, mask=mask(0)), click(0, 2, 47, 64)] if t == 0 else []
        ours.step(picture(t), prompts)
        for row, (object_id, stores) in enumerate(ours._stores.items()):
            found = predictor.record(t, object_id)
            assert found is not None
            record = stores.cond.get(t) or stores.other[t]
            torch.testing.assert_close(record.low, found[1].low, atol=1e-2, rtol=0)
            torch.testing.assert_close(record.ptr, found[1].ptr, atol=5e-2, rtol=0)
            assert torch.equal((record.low > 0).any(), (expected[t][row] > 0).any())


def test_memory_does_not_grow_and_old_frames_lose_what_nobody_reads() -> None:
    ours = tracker()
    sizes = []
    for t in range(40):
        ours.step(picture(t % 8), [Prompt(t, 1, mask=mask(0))] if t % 3 == 0 else [])
        sizes.append(sum(v.numel() for v in ours.state_dict().values() if isinstance(v, torch.Tensor)))
    stores = ours._stores[1]
    assert max(sizes[30:]) <= max(sizes[24:30])
    assert len(stores.cond) == ours.options.max_cond_frames
    assert min(stores.cond) == 0  # the first prompt is kept
    assert sum(record.low is not None for record in [*stores.cond.values(), *stores.other.values()]) == 1


def test_dropping_old_records_changes_no_result() -> None:
    bounded, whole = tracker(), tracker(Sam2Options(max_cond_frames=100))
    whole_drop = "vidseg_trackers.sam2.tracker.keep_recent"
    outputs: dict[str, list[np.ndarray]] = {"bounded": [], "whole": []}
    for t in range(24):
        prompts = [Prompt(0, 1, mask=mask(0))] if t == 0 else []
        outputs["bounded"].append(masks_of(bounded.step(picture(t % 8), prompts)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(whole_drop, lambda *arguments: None)
            outputs["whole"].append(masks_of(whole.step(picture(t % 8), prompts)))
    for ours, expected in zip(outputs["bounded"], outputs["whole"], strict=True):
        np.testing.assert_array_equal(ours, expected)


def masks_of(tracks: list[Tracks]) -> np.ndarray:
    found = only(tracks).masks
    assert found is not None
    return found


def test_the_device_is_asked_once_per_frame_whatever_is_on_it() -> None:
    waits, net = {}, on_device(Case("video_correction").network())
    for count in (1, 3):
        with FakeDevice() as device:
            ours = Sam2Tracker(net, Sam2Options())
            ours.start(INFO)
            ours.step(picture(0), [click(0, k + 1, 40.0 + 10 * k, 50) for k in range(count)])
            ours.step(picture(1), [click(1, 9, 47, 64)])  # of another age than the others
            before = dict(device.waits)
            found = [only(ours.step(picture(t))) for t in (2, 3)]
            waits[count] = {name: n - before.get(name, 0) for name, n in device.waits.items()}
        assert all(len(tracks.ids) for tracks in found)
    assert {name: n for name, n in waits[1].items() if n} == {"to the host": 2}
    assert waits[1] == waits[3]


def test_boxes_and_scores_are_those_of_the_masks() -> None:
    ours = tracker()
    ours.step(picture(0), [Prompt(0, 1, mask=mask(0)), Prompt(0, 2, mask=mask(0, 1))])
    found = only(ours.step(picture(1)))
    assert found.masks is not None and list(found.ids) == [1, 2]
    for row, object_id in enumerate(found.ids):
        low = ours._stores[int(object_id)].other[1].low
        assert low is not None
        shown = torch.nn.functional.interpolate(low, (HEIGHT, WIDTH), mode="bilinear")[0, 0] > 0
        np.testing.assert_array_equal(found.boxes[row], mask_box(shown.numpy()))
        torch.testing.assert_close(found.masks[row], torch.sigmoid(low)[0, 0])


def test_a_state_continues_bit_for_bit() -> None:
    first = tracker()
    first.step(picture(0), [Prompt(0, 1, mask=mask(0)), click(0, 2, 47, 64)])
    first.step(picture(1))
    state = first.state_dict()
    second = tracker()
    second.load_state_dict(state)
    for t in range(2, 6):
        prompts = [click(4, 1, 60, 40)] if t == 4 else []
        np.testing.assert_array_equal(
            masks_of(first.step(picture(t), prompts)), masks_of(second.step(picture(t), prompts))
        )
    assert first.state_dict().keys() == second.state_dict().keys()


def test_a_correction_is_remembered_and_in_parity_mode_it_is_not() -> None:
    for memory, kept in (("correct", True), ("official", False)):
        corrected = tracker(Sam2Options(memory=memory))  # type: ignore[arg-type]
        for t in range(6):
            prompts = [Prompt(0, 1, mask=mask(0))] if t == 0 else [click(4, 1, 60, 40)] if t == 4 else []
            corrected.step(picture(t), prompts)
        assert (4 in corrected._stores[1].cond) is kept


def test_a_correction_changes_nothing_for_the_others() -> None:
    plain, corrected = tracker(), tracker()
    for t in range(8):
        for ours in (plain, corrected):
            prompts = [Prompt(0, i, mask=mask(0, i - 1)) for i in (1, 2)] if t == 0 else []
            prompts += [click(t, 1, 30, 30, 0)] if t == 4 and ours is corrected else []
            ours.step(picture(t), prompts)
    assert (4 in corrected._stores[1].cond) and 4 not in corrected._stores[2].cond
    before, after = (ours._stores[2].other for ours in (plain, corrected))
    assert before.keys() == after.keys()
    for t in before:
        torch.testing.assert_close(before[t].low, after[t].low, atol=1e-4, rtol=1e-4)
    newest = max(plain._stores[1].other)
    assert not torch.allclose(plain._stores[1].other[newest].low, corrected._stores[1].other[newest].low)


def test_objects_of_different_age_in_one_batch_are_tracked_as_alone() -> None:
    together, alone = tracker(), tracker()
    for t in range(7):
        late = [Prompt(4, 2, mask=mask(4, 1))] if t == 4 else []
        both = together.step(picture(t), [Prompt(0, 1, mask=mask(0))] if t == 0 else late)
        single = alone.step(picture(t), late)
        if 2 in only(both).ids:
            row, other = only(both).ids.tolist().index(2), only(single).ids.tolist().index(2)
            np.testing.assert_allclose(masks_of(both)[row], masks_of(single)[other], atol=1e-3)


def test_a_removed_object_leaves_nothing_behind() -> None:
    ours = tracker()
    ours.step(picture(0), [Prompt(0, 1, mask=mask(0)), Prompt(0, 2, mask=mask(0, 1))])
    ours.remove([1, 99])
    assert 1 not in only(ours.step(picture(1))).ids
    assert not any(key.startswith(("cond.1.", "other.1.")) for key in ours.state_dict())


def test_wrong_input_is_one_clear_error_and_the_tracker_goes_on() -> None:
    ours = tracker()
    ours.step(picture(0), [Prompt(0, 1, mask=mask(0))])
    with pytest.raises(InputError, match="one size per run"):
        ours.step(Frame(1, 1, 0.1, np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(UsageError, match="given twice"):
        ours.step(picture(1), [click(1, 1, 5, 5), click(1, 1, 9, 9)])
    with pytest.raises(UsageError, match="start"):
        Sam2Tracker(network()).step(picture(0))
    assert 1 in ours._stores
