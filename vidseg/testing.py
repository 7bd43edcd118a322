"""Does a tracker keep the contract? For the tests of packages that add one::

    from vidseg.testing import check_tracker

    def test_the_tracker_keeps_the_contract():
        check_tracker(lambda: MyTracker())

The contract is :class:`vidseg.types.Tracker`. It says nothing of how well objects are followed. One module, because a
rule and the trackers that break it are easier to compare on one page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from vidseg.errors import VidsegError
from vidseg.masks.boxes import box_iou, mask_box
from vidseg.types import Frame, Prompt, RemovesObjects, State, Tracker, Tracks, VideoInfo

VIDEO = VideoInfo(128, 96, Fraction(25), frame_count=12, name="contract")
"""What trackers are checked on: :func:`synthetic_frame` 0 to 11."""
OBJECTS = (7, 3)
"""Ids of its two objects."""
_BLACK, _STILL = (4, 5), 9
_FIRST, _LATE, _REMOVED = 1, 8, 7
"""Frames with new objects, with a correction beside a new one, and without a removed one."""


class ContractError(VidsegError, AssertionError):
    """A tracker breaks a rule. One line: the rule, what was expected, what came and in which situation."""


def synthetic_masks(index: int) -> dict[int, npt.NDArray[np.bool_]]:
    """The objects of a frame, bool (96, 128) by id: two squares that move, are hidden for two frames, then stand."""
    if index in _BLACK:
        return {}
    x = 4 * min(index, _STILL)
    masks = {i: np.zeros((VIDEO.height, VIDEO.width), np.bool_) for i in OBJECTS}
    masks[OBJECTS[0]][12:44, 8 + x : 40 + x] = True
    masks[OBJECTS[1]][56:88, 88 - x : 120 - x] = True
    return masks


def synthetic_frame(index: int) -> Frame:
    """Frame ``index``: a red and a green square on grey noise; 4 and 5 are black, 9 and those after it alike."""
    rgb = np.random.default_rng(1).integers(90, 130, (VIDEO.height, VIDEO.width, 3)).astype(np.uint8)
    for mask, colour in zip(synthetic_masks(index).values(), ((220, 40, 30), (30, 200, 60)), strict=False):
        rgb[mask] = colour
    return Frame(index, index, index / 25, rgb * np.uint8(index not in _BLACK))


def check_tracker(build: Callable[[], Tracker]) -> None:
    """Run the contract on the trackers that ``build`` makes: a new one at every call, all with the same settings.

    Raises:
        ContractError: at the first rule that is broken.
    """
    prompts = {} if _Run(build, "a new tracker").tracker.finds_objects else _prompts(box=False)
    empty = _Run(build, "finish() before any frame")
    empty.finish()
    whole = _Run(build, "a video with prompts" if prompts else "a video")
    whole.follow(prompts)
    _check_prompted(whole, prompts)
    again = _Run(lambda: whole.tracker, "the same video again, after start()")
    again.follow(prompts)
    _check_same("start", again, whole)
    for cut in (_FIRST, _REMOVED):
        _check_state(build, cut, prompts, whole)
    nothing = _Run(build, "black frames without prompts, the first is frame 7")
    for index in range(7, 11):
        nothing.step(Frame(index, index, index / 25, np.zeros_like(synthetic_frame(0).rgb)))
    nothing.finish()
    if prompts and not whole.tracker.wants_masks:
        boxes = _Run(build, "boxes as prompts")
        for index in range(_FIRST + 2):
            boxes.step(synthetic_frame(index), _prompts(box=True).get(index, ()))
        boxes.finish()
    if isinstance(whole.tracker, RemovesObjects) and whole.tracker.can_remove:
        _check_remove(build, prompts)


class _Run:
    """A tracker on a video; every answer is checked when it comes."""

    def __init__(self, build: Callable[[], Tracker], situation: str) -> None:
        self.situation = situation
        self.tracker = self.call("build()", build)
        self._check_protocol()
        self.call("start()", self.tracker.start, VIDEO)
        self.waiting: list[int] = []
        """Frames without an answer, in order."""
        self.given: set[int] = set()
        self.removed: dict[int, int] = {}
        """Ids that were removed -> the first frame without them."""
        self.answers: dict[int, Tracks] = {}

    def fail(self, rule: str, expected: str, got: object) -> NoReturn:
        raise ContractError(" ".join(f"{rule}: expected {expected}, got {got} ({self.situation})".split()))

    def call(self, what: str, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise ContractError(
                " ".join(f"errors: expected none of {what}, got {_line(error)} ({self.situation})".split())
            ) from error

    def follow(self, prompts: Mapping[int, Sequence[Prompt]], first: int = 0) -> None:
        for index in range(first, VIDEO.frame_count or 0):
            self.step(synthetic_frame(index), prompts.get(index, ()))
        self.finish()

    def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> None:
        self.waiting.append(frame.index)
        self.given |= {p.object_id for p in prompts}
        self._take(f"step() of frame {frame.index}", self.tracker.step, frame, prompts)
        if len(self.waiting) > self.tracker.lookahead:
            held = f"{len(self.waiting)} after frame {frame.index}"
            self.fail("lookahead", f"at most {self.tracker.lookahead} frames held back", held)

    def finish(self) -> None:
        self._take("finish()", self.tracker.finish)
        if self.waiting:
            self.fail("finish", "the frames held back", f"no answer for frames {self.waiting}")
        if second := self.call("a second finish()", self.tracker.finish):
            self.fail("finish", "[] from a second finish()", second)

    def _take(self, what: str, function: Callable[..., Any], *arguments: object) -> None:
        found = self.call(what, function, *arguments)
        if not isinstance(found, list) or not all(isinstance(tracks, Tracks) for tracks in found):
            self.fail("protocol", f"a list of Tracks from {what}", repr(found)[:80])
        for tracks in found:
            if not self.waiting or tracks.frame_index != self.waiting[0]:
                due = f"frame {self.waiting[0]}" if self.waiting else "no more frames"
                self.fail("order", f"{due} in the answer of {what}", f"frame {tracks.frame_index}")
            self.waiting.pop(0)
            self._check_ids(tracks)
            self._check_boxes(tracks)
            self._check_masks(tracks)
            self.answers[tracks.frame_index] = tracks

    def _check_protocol(self) -> None:
        tracker = self.tracker
        if not isinstance(tracker, Tracker):
            self.fail("protocol", "all attributes of vidseg.types.Tracker", type(tracker).__name__)
        if not isinstance(tracker.lookahead, int) or tracker.lookahead < 0:
            self.fail("protocol", "lookahead, an int from 0", repr(tracker.lookahead))
        for name in ("wants_masks", "finds_objects"):
            if not isinstance(getattr(tracker, name), bool):
                self.fail("protocol", f"{name}, a bool", repr(getattr(tracker, name)))

    def _check_ids(self, tracks: Tracks) -> None:
        ids = tracks.ids.tolist()
        if tracks.ids.dtype != np.int64:
            self.fail("ids", f"int64 on frame {tracks.frame_index}", tracks.ids.dtype)
        if not self.tracker.finds_objects and not set(ids) <= self.given:
            self.fail("ids", f"those of prompts, {sorted(self.given)}, on frame {tracks.frame_index}", ids)
        gone = [i for i in ids if self.removed.get(i, tracks.frame_index + 1) <= tracks.frame_index]
        if gone:
            self.fail("remove", f"no removed object on frame {tracks.frame_index}", f"ids {gone}")

    def _check_boxes(self, tracks: Tracks) -> None:
        where = f"on frame {tracks.frame_index}"
        for name, values in (("boxes", tracks.boxes), ("scores", tracks.scores)):
            if values.dtype != np.float32 or not np.isfinite(values).all():
                self.fail(name, f"finite float32 {where}", f"{values.dtype}: {values.tolist()}")
        if len(tracks.ids) == 0:
            return
        x1, y1, x2, y2 = tracks.boxes.T
        edges = bool((x1 >= 0).all() and (y1 >= 0).all() and (x2 <= VIDEO.width).all() and (y2 <= VIDEO.height).all())
        if not edges or not ((x1 < x2) & (y1 < y2)).all():
            inside = f"x1,y1,x2,y2 with x1 < x2 <= {VIDEO.width} and y1 < y2 <= {VIDEO.height} {where}"
            self.fail("boxes", inside, tracks.boxes.tolist())
        if tracks.scores.min() < 0 or tracks.scores.max() > 1:
            self.fail("scores", f"0..1 {where}", tracks.scores.tolist())

    def _check_masks(self, tracks: Tracks) -> None:
        masks, where = tracks.masks, f"on frame {tracks.frame_index}"
        if masks is None:
            if len(tracks.ids) and getattr(self.tracker, "gives_masks", True):
                self.fail("masks", f"a tensor {where}, or gives_masks = False of the tracker", None)
            return
        if not isinstance(masks, torch.Tensor) or masks.dtype != torch.float32 or 0 in masks.shape[1:]:
            kind = f"{type(masks).__name__} {masks.dtype} {tuple(masks.shape)}"
            self.fail("masks", f"a float32 tensor (N, h, w) {where}", kind)
        if masks.numel() and not bool(((masks >= 0) & (masks <= 1)).all()):
            self.fail("masks", f"probabilities 0..1 {where}", f"{float(masks.min()):g}..{float(masks.max()):g}")
        if masks.numel() and tracks.exclusive and float(masks.sum(0).max()) > 1.001:
            most = f"{float(masks.sum(0).max()):g}"
            self.fail("masks", f"a sum of at most 1 at every pixel {where}, or exclusive=False", most)


def _prompts(*, box: bool) -> dict[int, list[Prompt]]:
    """Two objects that appear after the first frame, and later a correction of the first together with a new one."""

    def prompt(index: int, object_id: int, mask: npt.NDArray[np.bool_]) -> Prompt:
        if box:
            x1, y1, x2, y2 = mask_box(mask)
            return Prompt(index, object_id, box=(x1, y1, x2, y2))
        return Prompt(index, object_id, mask=mask)

    new = np.zeros((VIDEO.height, VIDEO.width), np.bool_)
    new[60:90, 4:30] = True
    first, late = synthetic_masks(_FIRST), synthetic_masks(_LATE)
    return {
        _FIRST: [prompt(_FIRST, i, first[i]) for i in OBJECTS],
        _LATE: [prompt(_LATE, OBJECTS[0], late[OBJECTS[0]]), prompt(_LATE, 12, new)],
    }


def _check_prompted(run: _Run, prompts: Mapping[int, Sequence[Prompt]]) -> None:
    """A mask that was given comes back on its frame, under its id."""
    for index, given in prompts.items():
        tracks = run.answers[index]
        boxes = np.array([mask_box(p.mask) for p in given if p.mask is not None], np.float32)
        for row, prompt in enumerate(given):
            found = tracks.boxes[tracks.ids == prompt.object_id]
            if len(found) == 0:
                ids = f"ids {tracks.ids.tolist()}"
                run.fail("prompt", f"object {prompt.object_id} on frame {index}, where its mask was given", ids)
            overlap = box_iou(found, boxes)[0]
            if overlap[row] <= 0 or int(overlap.argmax()) != row:
                expected = f"object {prompt.object_id} on frame {index} near its prompt {boxes[row].tolist()}"
                run.fail("prompt", expected, f"the box {found[0].tolist()}")


def _check_state(build: Callable[[], Tracker], cut: int, prompts: Mapping[int, Sequence[Prompt]], whole: _Run) -> None:
    """A state continues in a new tracker, sets its own back, and does not change with what follows."""
    first = _Run(build, f"the state before frame {cut}")
    for index in range(cut):
        first.step(synthetic_frame(index), prompts.get(index, ()))
    state = first.call("state_dict()", first.tracker.state_dict)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        first.fail("state", "a dictionary with names", repr(state)[:80])
    for name, value in state.items():
        if not isinstance(value, torch.Tensor | int | float | str):
            first.fail("state", f"a tensor, int, float or str as '{name}'", type(value).__name__)
    kept = _copy(state)

    second = _Run(build, f"a new tracker with the state before frame {cut}")
    second.call("load_state_dict()", second.tracker.load_state_dict, _copy(kept))
    second.waiting, second.given = list(first.waiting), set(first.given)
    second.follow(prompts, cut)
    _check_same("state", second, whole)

    first.step(synthetic_frame(cut))
    for name, value in kept.items():
        now = state[name]
        if not (torch.equal(value, now.cpu()) if isinstance(value, torch.Tensor) else value == now):
            first.fail("state", f"'{name}' as it was when it was taken", "another value after the next step")
    if not first.tracker.lookahead:
        first.situation = f"set back to its state before frame {cut}"
        first.call("load_state_dict()", first.tracker.load_state_dict, _copy(kept))
        first.step(synthetic_frame(cut), prompts.get(cut, ()))
        _check_same("state", first, whole)


def _copy(state: State) -> State:
    """As it comes from a file."""
    return {k: v.detach().cpu().clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}


def _check_same(rule: str, run: _Run, whole: _Run) -> None:
    for index, tracks in run.answers.items():
        other = whole.answers[index]
        for name in ("ids", "boxes", "scores", "labels", "masks"):
            got, expected = getattr(tracks, name), getattr(other, name)
            if not _equal(got, expected):
                run.fail(rule, f"the {name} of frame {index} as in {whole.situation}: {_show(expected)}", _show(got))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)


def _show(value: Any) -> object:
    return (
        f"{tuple(value.shape)} values" if isinstance(value, torch.Tensor) else getattr(value, "tolist", lambda: value)()
    )


def _check_remove(build: Callable[[], Tracker], prompts: Mapping[int, Sequence[Prompt]]) -> None:
    """A removed object does not come back; an id that nobody follows is no error."""
    run = _Run(build, f"an object removed before frame {_REMOVED}")
    for index in range(_REMOVED):
        run.step(synthetic_frame(index), prompts.get(index, ()))
    seen = [i for tracks in run.answers.values() for i in tracks.ids.tolist()]
    gone = next((p.object_id for p in prompts.get(_FIRST, ()) if p.object_id != OBJECTS[0]), min(seen, default=1))
    run.call(f"remove([{gone}, 9999])", run.tracker.remove, [gone, 9999])
    run.removed[gone] = _REMOVED
    run.follow(prompts, _REMOVED)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
