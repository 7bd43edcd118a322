"""The kit for plug-ins: our own trackers keep the contract, and every rule has a tracker that breaks it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cutie_rule
import mask2former_oracle
import sam2_rule
import xmem_rule
from toys import KeepMasks
from vidseg.masks.boxes import mask_box
from vidseg.registry import build_tracker
from vidseg.testing import VIDEO, ContractError, check_tracker, synthetic_masks
from vidseg.types import Frame, Prompt, State, Tracker, Tracks, VideoInfo
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.cutie.tracker import CutieTracker
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.tracker import Mask2FormerTracker
from vidseg_trackers.sam2.tracker import Sam2Tracker
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.tracker import XMemTracker


@pytest.mark.parametrize("options", [{}, {"memory": "official"}, {"scene_cut": 0.2, "forget_after": 3}])
def test_xmem_keeps_the_contract(options: dict[str, object]) -> None:
    network = xmem_rule.toy_network()
    check_tracker(lambda: XMemTracker(network, XMemOptions.from_mapping({"size": 48, "mem_every": 2, **options})))


def test_cutie_keeps_the_contract() -> None:
    network = cutie_rule.toy_cutie()
    check_tracker(lambda: CutieTracker(network, CutieOptions(size=64, mem_every=2)))


def test_sam2_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    network = sam2_rule.Case("video_correction").network()
    encode = lru_cache(lambda pixels: network_encode(np.frombuffer(pixels, np.uint8).reshape(96, 128, 3).copy()))
    network_encode = network.encode_frame
    monkeypatch.setattr(network, "encode_frame", lambda rgb: encode(rgb.tobytes()))  # every frame comes eight times
    check_tracker(lambda: Sam2Tracker(network))


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"mode": "offline"}])
def test_mask2former_keeps_the_contract(options: dict[str, Any]) -> None:
    network = mask2former_oracle.toy_network()
    chosen = Mask2FormerOptions(size=32, min_score=0.05, **options)
    check_tracker(lambda: Mask2FormerTracker(network, chosen))


@pytest.mark.parametrize("ids", [True, False])
def test_boxes_keep_the_contract(tmp_path: Path, ids: bool) -> None:
    file = tmp_path / "boxes.json"
    rows = []
    for index in range(VIDEO.frame_count or 0):
        for i, mask in synthetic_masks(index).items():
            x1, y1, x2, y2 = mask_box(mask).tolist()
            track = {"track_id": i} if ids else {}
            rows.append(
                {"image_id": index, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.5, **track}
            )
    file.write_text(json.dumps(rows))
    check_tracker(lambda: build_tracker("boxes", {"file": str(file)}))


class Good(KeepMasks):
    """Keeps the contract; what is derived from it breaks one rule."""

    can_remove = True

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        return [self.answer(tracks) for tracks in super().step(frame, prompts)]

    def answer(self, tracks: Tracks) -> Tracks:
        return tracks

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()})

    def remove(self, ids: Sequence[int]) -> None:
        for i in ids:
            self.masks.pop(i, None)


class HoldsBack(Good):
    """Gives its answers ``late`` frames later than the frames come."""

    lookahead = late = 2

    def start(self, video: VideoInfo) -> None:
        super().start(video)
        self.held: list[Tracks] = []

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
        self.held += super().step(frame, prompts)
        ready, self.held = self.held[: -self.late], self.held[-self.late :]
        return ready

    def finish(self) -> list[Tracks]:
        held, self.held = self.held, []
        return held

    def state_dict(self) -> State:
        held = {f"held.{t.frame_index}": torch.cat([torch.from_numpy(t.ids), torch.zeros(0)]) for t in self.held}
        return {**super().state_dict(), **held}

    def load_state_dict(self, state: State) -> None:
        own = {k: v for k, v in state.items() if not k.startswith("held.")}
        super().load_state_dict(own)
        for name in state:
            if name.startswith("held."):
                index = int(name.removeprefix("held."))
                known, self.masks = self.masks, {i: self.masks[i] for i in state[name].long().tolist()}  # type: ignore
                self.held += KeepMasks.step(self, Frame(index, index, 0.0, np.zeros((96, 128, 3), np.uint8)))
                self.masks = known
                self.steps -= 1


def broken(base: type[Good], **members: Any) -> Callable[[], Tracker]:
    return type("Broken", (base,), members)  # type: ignore[return-value]


def answering(change: Callable[[Tracks], Tracks]) -> Callable[[], Tracker]:
    """A tracker whose answers with objects are changed."""
    return broken(Good, answer=lambda self, tracks: change(tracks) if len(tracks.ids) else tracks)


def with_masks(change: Callable[[torch.Tensor], Any]) -> Callable[[], Tracker]:
    return answering(lambda tracks: replace(tracks, masks=change(tracks.masks)))  # type: ignore[arg-type]


def moved(*by: float) -> Callable[[], Tracker]:
    return answering(lambda tracks: replace(tracks, boxes=tracks.boxes + np.array(by, np.float32)))


def twice(self: Good, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
    return Good.step(self, frame, prompts) * 2


def counted(self: Good, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
    (tracks,) = Good.step(self, frame, prompts)
    return [replace(tracks, frame_index=self.steps - 1)]


def divides(self: Good, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
    if frame.rgb.max() == 0:
        raise ZeroDivisionError("mean of\nnothing")
    return Good.step(self, frame, prompts)


def fading(self: Good, tracks: Tracks) -> Tracks:
    return replace(tracks, scores=tracks.scores / np.float32(self.steps))


def in_place(self: Good, frame: Frame, prompts: Sequence[Prompt] = ()) -> list[Tracks]:
    for mask in list(self.masks.values())[:1]:
        mask[0, 0] ^= True
    copies = [replace(p, mask=p.mask.copy()) for p in prompts if p.mask is not None]
    return Good.step(self, frame, copies)


def no_set_back(self: Good, state: State) -> None:
    if not self.steps:
        Good.load_state_dict(self, state)


BROKEN = [
    (broken(Good, finish=None, state_dict=None), "protocol: expected all attributes of vidseg.types.Tracker"),
    (broken(Good, lookahead=-1), "protocol: expected lookahead, an int from 0, got -1"),
    (broken(Good, wants_masks="yes"), "protocol: expected wants_masks, a bool, got 'yes'"),
    (
        broken(Good, step=lambda self, frame, prompts=(): None),
        "protocol: expected a list of Tracks from step() of frame",
    ),
    (broken(Good, step=twice), "order: expected no more frames in the answer of step() of frame 0, got frame 0"),
    (broken(Good, step=counted), "order: expected frame 7 in the answer of step() of frame 7, got frame 0"),
    (broken(HoldsBack, lookahead=1), "lookahead: expected at most 1 frames held back, got 2 after frame"),
    (
        broken(HoldsBack, finish=lambda self: []),
        "finish: expected the frames held back, got no answer for frames [10, 11]",
    ),
    (broken(HoldsBack, finish=lambda self: self.held), "finish: expected [] from a second finish(), got [Tracks("),
    (answering(lambda t: replace(t, ids=t.ids.astype(np.int32))), "ids: expected int64 on frame 1, got int32"),
    (answering(lambda t: replace(t, ids=t.ids + 1)), "ids: expected those of prompts, [3, 7], on frame 1, got [4, 8]"),
    (
        answering(lambda t: replace(t, ids=t.ids * 0)),
        "errors: expected none of step() of frame 1, got UsageError: tracks",
    ),
    (
        answering(lambda t: replace(t, ids=t.ids[::-1].copy())),
        "prompt: expected object 7 on frame 1 near its prompt [12",
    ),
    (
        answering(lambda t: Tracks(t.frame_index, t.ids[:0], t.boxes[:0], t.scores[:0], masks=t.masks[:0])),
        "prompt: expected object 7 on frame 1, where its mask was given, got ids []",
    ),
    (moved(0, 0, 100, 0), "boxes: expected x1,y1,x2,y2 with x1 < x2 <= 128 and y1 < y2 <= 96 on frame 1"),
    (moved(0, 32, 0, 0), "boxes: expected x1,y1,x2,y2 with x1 < x2 <= 128 and y1 < y2 <= 96 on frame 1"),
    (moved(np.nan, 0, 0, 0), "boxes: expected finite float32 on frame 1"),
    (answering(lambda t: replace(t, scores=t.scores * 99)), "scores: expected 0..1 on frame 1, got [99.0, 99.0]"),
    (
        with_masks(lambda m: None),
        "masks: expected a tensor on frame 1, or gives_masks = False of the tracker, got None",
    ),
    (
        with_masks(lambda m: m > 0.5),
        "masks: expected a float32 tensor (N, h, w) on frame 1, got Tensor torch.bool (2, 96",
    ),
    (with_masks(lambda m: 20 * m - 10), "masks: expected probabilities 0..1 on frame 1, got -10..8"),
    (
        with_masks(lambda m: 0 * m + 0.9),
        "masks: expected a sum of at most 1 at every pixel on frame 1, or exclusive=False",
    ),
    (
        broken(Good, start=lambda self, video: None),
        "ids: expected those of prompts, [], on frame 0, got [3, 7, 12] (the same video ag",
    ),
    (
        broken(Good, answer=fading, start=lambda self, video: self.masks.clear()),
        "start: expected the scores of frame 1 as in",
    ),
    (
        broken(Good, state_dict=lambda self: {"masks": self.masks}),
        "state: expected a tensor, int, float or str as 'masks'",
    ),
    (broken(Good, state_dict=lambda self: [1]), "state: expected a dictionary with names, got [1]"),
    (
        broken(Good, load_state_dict=lambda self, state: None),
        "state: expected the ids of frame 7 as in a video with prom",
    ),
    (
        broken(Good, answer=fading, state_dict=lambda self: {**KeepMasks.state_dict(self), "steps": 0}),
        "state: expected the",
    ),
    (broken(Good, step=in_place), "state: expected 'mask.7' as it was when it was taken, got another value after"),
    (
        broken(Good, answer=fading, load_state_dict=no_set_back),
        "state: expected the scores of frame 1 as in a video with",
    ),
    (broken(Good, remove=lambda self, ids: None), "remove: expected no removed object on frame 7, got ids [3]"),
    (
        broken(Good, remove=lambda self, ids: [self.masks.pop(i) for i in ids]),
        "errors: expected none of remove([3, 9999])",
    ),
    (broken(Good, step=divides), "errors: expected none of step() of frame 4, got ZeroDivisionError: mean of nothing"),
]


@pytest.mark.parametrize(("build", "line"), BROKEN, ids=[line.partition(",")[0] for _, line in BROKEN])
def test_a_broken_rule_is_named_in_one_line(build: Callable[[], Tracker], line: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_tracker(build)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [Good, HoldsBack])
def test_what_the_broken_ones_are_made_of_is_whole(build: Callable[[], Tracker]) -> None:
    check_tracker(build)
