"""Objects that neither move nor change are drawn once, whatever else happens; what changes is drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from toys import DriftMasks, EncoderCounter, KeepMasks, frames, tiny_sam
from vidseg import Session
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.refiner import RefineOptions, Refiner
from vidseg_pipelines.run import models_of
from vidseg_pipelines.segmenter import Segmenter

FIRST = frames(1)[0]
HEIGHT, WIDTH = FIRST.hw


def square(y: int, x: int, side: int = 24) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


GIVEN = [Prompt(0, 1, mask=square(10, 10)), Prompt(0, 2, mask=square(40, 90))]


def still(count: int) -> list[Frame]:
    """The same picture again and again."""
    return [replace(FIRST, index=i, pts=i, time_s=i / 24) for i in range(count)]


def brighter(clip: Sequence[Frame], at: int, levels: int, where: np.ndarray) -> list[Frame]:
    """A clip that is brighter in some pixels from a frame on."""
    light = np.clip(clip[at].rgb.astype(int) + levels * where[..., None], 0, 255).astype(np.uint8)
    return [frame if frame.index < at else replace(frame, rgb=light) for frame in clip]


def segment(
    clip: Sequence[Frame], *, keep_still: bool = True, tracker: Tracker | None = None, batch: int = 3
) -> tuple[int, list[FrameMasks]]:
    """How many crops were encoded, and the results."""
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    settings = {"tracker": tracker or KeepMasks(), "keep_still": keep_still, "zoom": "always"}
    results = list(segment_frames(clip, model=sam, prompts=GIVEN, batch=batch, **settings))  # type: ignore[arg-type]
    return counter.images, results


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_still_objects_are_drawn_once_and_look_the_same(batch: int) -> None:
    drawn, expected = segment(still(8), keep_still=False, batch=batch)
    kept, results = segment(still(8), batch=batch)
    assert (drawn, kept) == (14, 2)  # masks are given on the first frame
    assert [r.ids for r in results] == [(1, 2)] * 8
    assert [r.rles for r in results] == [r.rles for r in expected]
    assert [r.signals for r in results] == [r.signals for r in expected]


def test_an_object_is_drawn_again_where_its_surroundings_change_and_no_other_is() -> None:
    assert segment(brighter(still(8), 4, 20, square(6, 8)))[0] == 3
    assert segment(brighter(still(8), 4, 20, square(0, 66, 6)))[0] == 2  # near no object
    assert segment(brighter(still(8), 4, 2, square(0, 0, 200)))[0] == 2  # hardly


def test_slow_changes_add_up() -> None:
    clip = still(9)
    for at in range(1, 9):
        clip = brighter(clip, at, 3, square(0, 0, 200))
    assert segment(clip)[0] == 2 * 3  # of 3 levels a frame, every third one


def test_an_object_that_moves_is_drawn_on_every_frame() -> None:
    assert segment(still(6), tracker=DriftMasks())[0] == 10


def test_a_frame_of_still_objects_is_not_encoded() -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    list(segment_frames(still(6), tracker=KeepMasks(), model=sam, prompts=GIVEN, keep_still=True, zoom="never"))
    assert counter.images == 1


def segmenter(keep_still: bool = True) -> Segmenter:
    sam = tiny_sam()
    made = Segmenter(
        KeepMasks(), sam, Refiner(sam, RefineOptions(keep_still=keep_still, zoom="always")), prompts=GIVEN, batch=2
    )
    made.start(VideoInfo(WIDTH, HEIGHT, Fraction(24)))
    return made


def test_a_state_goes_on_bit_by_bit_and_without_drawing_again() -> None:
    rng = np.random.default_rng(0)
    noisy = [
        replace(f, rgb=np.clip(f.rgb + rng.integers(-2, 3, f.rgb.shape), 0, 255).astype(np.uint8)) for f in still(8)
    ]
    whole, first, second = segmenter(), segmenter(), segmenter()
    expected = [m for at in range(0, 8, 2) for _, m in whole.step(noisy[at : at + 2])]
    for at in (0, 2):
        first.step(noisy[at : at + 2])
    state = first.state_dict()
    assert state is not None
    tensors = load(save({k: v.contiguous() for k, v in state.items() if isinstance(v, torch.Tensor)}))
    first.step(noisy[4:6])  # a state does not change with what follows
    second.load_state_dict({k: tensors.get(k, v) for k, v in state.items()}, 4)
    counter = EncoderCounter(second.sam)  # type: ignore[arg-type]
    results = [m for at in (4, 6) for _, m in second.step(noisy[at : at + 2])]
    assert counter.images == 0
    assert [r.rles for r in results] == [r.rles for r in expected[4:]]
    assert [r.signals for r in results] == [r.signals for r in expected[4:]]


def test_nothing_is_kept_in_states_without_the_option_and_states_without_it_are_read() -> None:
    plain, keeping = segmenter(keep_still=False), segmenter()
    plain.step(still(2))
    state = plain.state_dict()
    assert state is not None
    assert not any(name.startswith("still.") for name in state)
    keeping.load_state_dict(state, 2)
    counter = EncoderCounter(keeping.sam)  # type: ignore[arg-type]
    keeping.step(still(4)[2:])
    assert counter.images == 2


def test_a_session_keeps_them_and_draws_what_is_corrected() -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    session = Session(tracker=KeepMasks(), model=sam, zoom="always", keep_still=True)
    clip = still(8)
    session.step(clip[0])
    for prompt in GIVEN:
        session.add(mask=prompt.mask)
    assert counter.images == 0
    for frame in clip[1:4]:
        session.step(frame)
    assert counter.images == 2
    state = session.state_dict()
    session.correct(1, mask=square(12, 14))
    assert counter.images == 2
    after = [session.step(frame).rles for frame in clip[4:6]]
    assert counter.images == 3  # of the corrected object, once
    session.load_state_dict(state)
    assert [session.step(frame).rles for frame in clip[4:6]] != after
    assert counter.images == 3


def test_only_a_yes_or_no_will_do_and_runs_pass_it_on() -> None:
    with pytest.raises(UsageError, match="keep_still 'no': True or False"):
        Session(tracker=KeepMasks(), model=tiny_sam(), keep_still="no")  # type: ignore[arg-type]
    assert models_of(RunConfig(keep_still=True)).keep_still
    assert not models_of(RunConfig()).keep_still
