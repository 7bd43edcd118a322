"""Sessions: what is said of the frame just seen acts as if it had been known, and no error leaves a trace."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import paths
from cutie_rule import toy_cutie
from sam2_rule import Case
from toys import BoxesEverywhere, DriftMasks, KeepMasks, frames, tiny_sam
from vidseg import Session, __version__, segment_frames
from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode
from vidseg.registry import build_tracker
from vidseg.types import Frame, Prompt, Proposal, Tracker
from vidseg_pipelines.drawing import draw_prompts
from vidseg_trackers.cutie.options import CutieOptions
from vidseg_trackers.cutie.tracker import CutieTracker
from vidseg_trackers.sam2.tracker import Sam2Tracker

HEIGHT, WIDTH = 48, 64
FRAMES = frames(6, HEIGHT, WIDTH)
BOX = (5, 5, 30, 25)


def toy_session(**settings: Any) -> Session:
    return Session(**{"tracker": DriftMasks(), "model": tiny_sam(), "refine": "none", **settings})


def seen(count: int = 1, **settings: Any) -> Session:
    """A session that has seen some frames."""
    session = toy_session(**settings)
    for frame in FRAMES[:count]:
        session.step(frame)
    return session


def square(y: int, x: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def mask_of(masks: FrameMasks, object_id: int) -> np.ndarray:
    return decode(masks.rles[masks.ids.index(object_id)])


def same(a: FrameMasks, b: FrameMasks) -> bool:
    return (a.frame_index, a.ids, a.labels, a.rles) == (b.frame_index, b.ids, b.labels, b.rles) and np.array_equal(
        a.boxes, b.boxes
    )


def xmem() -> Tracker:
    return build_tracker("xmem", {"size": -1, "mem_every": 2})


def cutie() -> Tracker:
    memory = {"max_mem_frames": 4, "min_mem_frames": 2, "num_prototypes": 4, "max_num_tokens": 24, "buffer_tokens": 4}
    options = {"size": -1, "mem_every": 2, "absence": False, "long_term": memory}
    return CutieTracker(toy_cutie(), CutieOptions.from_mapping(options))


@pytest.mark.parametrize("tracker", [DriftMasks, xmem, cutie])
def test_a_session_gives_what_segment_frames_gives_for_the_same_prompts(tracker: Callable[[], Tracker]) -> None:
    prompts = [
        Prompt(0, 1, box=BOX),
        Prompt(0, 2, points=((45, 35),), point_labels=(1,), label="bear"),
        Prompt(2, 3, mask=square(30, 5)),
        Prompt(3, 1, points=((12, 12), (40, 40)), point_labels=(1, 0)),
    ]
    sam = tiny_sam()
    expected = list(segment_frames(FRAMES, prompts=prompts, tracker=tracker(), model=sam, refine="box"))
    given = []
    with Session(tracker=tracker(), model=sam, refine="box") as session:
        for frame in FRAMES:
            session.step(frame)
            if frame.index == 0:
                assert session.add(box=BOX) == 1
                assert session.add(points=[(45, 35)], label="bear") == 2
            elif frame.index == 2:
                assert session.add(mask=square(30, 5)) == 3
            elif frame.index == 3:
                session.correct(1, points=[(12, 12), (40, 40)], labels=[1, 0])
            given.append(session.masks)
    assert [m.ids for m in expected][2] == (1, 2, 3)
    assert all(same(a, b) for a, b in zip(given, expected, strict=True))


def test_a_tracker_that_takes_clicks_itself_gets_all_clicks_of_a_frame() -> None:
    network, sam = Case("video_correction").network(), tiny_sam()
    clicks = Prompt(2, 1, points=((12.0, 12.0), (40.0, 40.0)), point_labels=(1, 0))
    prompts = [Prompt(0, 1, box=BOX), Prompt(1, 2, mask=square(30, 5)), clicks]
    settings: dict[str, Any] = {"model": sam, "refine": "none"}
    expected = list(segment_frames(FRAMES[:4], prompts=prompts, tracker=Sam2Tracker(network), **settings))
    session, given = Session(tracker=Sam2Tracker(network), **settings), []
    for frame in FRAMES[:4]:
        session.step(frame)
        if frame.index == 0:
            session.add(box=BOX)
        elif frame.index == 1:
            session.add(mask=square(30, 5))
        elif frame.index == 2:
            session.correct(1, points=(12, 12))
            session.correct(1, points=(40, 40), labels=0)
        given.append(session.masks)
    assert given[1].ids == (1, 2)
    assert all(same(a, b) for a, b in zip(given, expected, strict=True))
    session.remove(1)
    assert session.masks.ids == session.objects == (2,)


def test_what_is_added_is_seen_at_once_and_followed() -> None:
    session = seen()
    assert (session.masks.ids, session.objects) == ((), ())
    first = session.add(mask=square(5, 5), label="box")
    assert session.masks.labels == ("box",)
    assert np.array_equal(mask_of(session.masks, first), square(5, 5))
    session.step(FRAMES[1])
    second = session.add(mask=square(30, 40).astype(np.uint8) * 255)
    assert (first, second, session.masks.ids, session.objects) == (1, 2, (1, 2), (1, 2))
    masks = session.step(FRAMES[2])
    assert np.array_equal(mask_of(masks, first), square(5, 7))
    assert np.array_equal(mask_of(masks, second), square(30, 41))
    assert masks.labels == ("box", None)


def test_corrections_on_one_frame_follow_each_other() -> None:
    session = seen()
    thing = session.add(mask=square(5, 5))
    session.correct(thing, mask=square(20, 20))
    session.correct(thing, points=[(22, 22)], labels=[0])
    shown = mask_of(session.masks, thing)
    assert shown.any() and not shown[22, 22] and not (shown & ~square(20, 20)).any()
    session.step(FRAMES[1])
    session.correct(thing, box=(30, 30, 50, 45))
    assert session.masks.ids == (thing,)


def test_a_preview_is_what_would_be_shown_and_changes_nothing() -> None:
    session, other = seen(), seen()
    for one in (session, other):
        one.add(mask=square(5, 5))
        one.step(FRAMES[1])
    before = session.masks
    new = session.preview(box=(30, 20, 60, 45))
    corrected = session.preview(1, points=[(7, 8)], labels=0)
    assert session.masks is before and session.objects == (1,)
    assert np.array_equal(new, mask_of_added(other, box=(30, 20, 60, 45)))
    assert corrected.shape == (HEIGHT, WIDTH) and not corrected[8, 7] and corrected.dtype == np.bool_
    assert same(session.step(FRAMES[2]), seen_with(square(5, 5), 3))


def test_a_quick_preview_is_drawn_on_the_whole_frame_alone() -> None:
    session, box = seen(), (30, 20, 60, 45)
    session.add(mask=square(5, 5))
    (features,) = (sam := tiny_sam()).encode([FRAMES[0].rgb])
    (expected,) = draw_prompts(sam, FRAMES[0].rgb, features, [Prompt(0, 2, box=box)], "never", session_masks(session))
    before = session.masks
    assert np.array_equal(session.preview(box=box, quick=True), expected)
    assert not np.array_equal(session.preview(box=box), expected)
    assert session.masks is before and session.objects == (1,)
    with pytest.raises(UsageError, match="object 9 does not exist"):
        session.preview(9, box=box, quick=True)


def session_masks(session: Session) -> dict[int, np.ndarray]:
    return dict(zip(session.masks.ids, session.masks.masks, strict=True))


def mask_of_added(session: Session, **prompt: Any) -> np.ndarray:
    new = session.add(**prompt)
    return mask_of(session.masks, new)


def seen_with(mask: np.ndarray, count: int) -> FrameMasks:
    session = seen()
    session.add(mask=mask)
    for frame in FRAMES[1:count]:
        session.step(frame)
    return session.masks


def test_a_removed_object_is_gone_at_once_and_its_id_with_it() -> None:
    session = seen()
    first, second = session.add(mask=square(5, 5)), session.add(mask=square(30, 40), label="bear")
    session.step(FRAMES[1])
    session.remove(first)
    assert (session.masks.ids, session.objects) == ((second,), (second,))
    third = session.add(mask=square(5, 5))
    session.remove(third)  # on the frame on which it was added
    assert session.add(mask=square(20, 20)) == 4
    assert session.step(FRAMES[2]).ids == (second, 4)
    assert session.masks.labels == ("bear", None)


def test_what_was_added_just_now_can_be_taken_back_whatever_the_tracker() -> None:
    session = seen(tracker=KeepMasks())
    session.remove(session.add(mask=square(5, 5)))
    assert session.masks.ids == ()
    thing = session.add(mask=square(5, 5))
    session.step(FRAMES[1])
    with pytest.raises(UsageError, match="cannot let go of an object"):
        session.remove(thing)
    assert session.step(FRAMES[2]).ids == (thing,)


WRONG: list[tuple[Callable[[Session], object], str]] = [
    (lambda s: s.add(), "empty prompt: give a box, points or a mask"),
    (lambda s: s.add(box=(5, 5, 30)), r"box \(5, 5, 30\): finite numbers \(x1, y1, x2, y2\) expected"),
    (lambda s: s.add(box=(30, 5, 5, 25)), "box 30,5,5,25: expected finite numbers with x1 < x2"),
    (lambda s: s.add(box="5,5,30,25"), "finite numbers"),
    (lambda s: s.add(box=(100, 5, 130, 25)), "box 100,5,130,25 lies outside the frame, which is 64x48"),
    (lambda s: s.add(points=[(70, 5)]), "point 70,5 lies outside the frame"),
    (lambda s: s.add(points=[(7, 5)], labels=[1, 0]), "1 points but 2 labels"),
    (lambda s: s.add(points=[(7, 5)], labels=[2]), "allowed are 1"),
    (lambda s: s.add(points=[(7, 5)], labels=["a"]), r"labels \['a'\]: 1 \(on the object\) or 0 \(background\)"),
    (lambda s: s.add(points=[(7, 5)], labels=[None]), "1 .on the object. or 0"),
    (lambda s: s.add(points=[(7, 5)], labels=0.5), "labels 0.5: 1"),
    (lambda s: s.add(points=[(7, 5)], labels=[0]), "at least one click must be on the object"),
    (lambda s: s.add(mask=np.zeros((HEIGHT, WIDTH), np.bool_)), "the mask is empty"),
    (lambda s: s.add(mask=np.ones((4, 4), np.bool_)), "the mask has 4x4 pixels, the frame 64x48"),
    (lambda s: s.add(mask=np.full((HEIGHT, WIDTH), 0.5)), "an array .* of bool, .* expected, got float64"),
    (lambda s: s.add(mask=square(5, 6)), "object 1 has this very mask already"),
    (lambda s: s.add(mask=square(30, 40)), "object 2 has this very mask already"),
    (lambda s: s.add(box=BOX, label="a\nb"), "label|name|line|control"),
    (lambda s: s.correct(9, box=BOX), "object 9 does not exist; there are: 1, 2"),
    (lambda s: s.correct(3, box=BOX), "object 3 is not followed any more; there are: 1, 2"),
    (lambda s: s.add(box=BOX, label=3), "label: a name expected, got 3"),
    (lambda s: s.correct(None, box=BOX), "object id None: a whole number"),  # type: ignore[arg-type]
    (lambda s: s.correct("1", box=BOX), "object id '1': a whole number"),  # type: ignore[arg-type]
    (lambda s: s.correct(1), "empty prompt"),
    (lambda s: s.correct(1, mask=square(30, 40)), "object 2 has this very mask"),
    (lambda s: s.remove(3), "object 3 is not followed any more"),
    (lambda s: s.remove(0), "object id 0: a whole number of at least 1 expected"),
    (lambda s: s.preview(9, box=BOX), "object 9 does not exist"),
    (lambda s: s.preview(box=(100, 5, 130, 25)), "lies outside the frame"),
    (lambda s: s.step(FRAMES[1]), "frame 1 comes after frame 1: indices must increase"),
    (lambda s: s.step(np.zeros((50, 64, 3), np.uint8)), "frame 2 is 64x50, the first was 64x48: one size expected"),
    (lambda s: s.step(np.zeros((HEIGHT, WIDTH), np.uint8)), r"rgb must be uint8 \(H, W, 3\)"),
    (lambda s: s.step(np.zeros((HEIGHT, WIDTH, 3))), "rgb must be uint8"),
    (lambda s: s.step("frame.png"), "frame 2: a uint8 RGB array .*, a PIL image or a Frame expected, got str"),
    (lambda s: s.step(None), "got NoneType"),
    (lambda s: s.load_state_dict({}), "this is not the state of a session"),
    (lambda s: s.load_state_dict(5), "this is not the state of a session"),
    (
        lambda s: s.load_state_dict({**s.state_dict(), "session.version": "0.0.1"}),
        f"made with vidseg 0.0.1, this session has {__version__}",
    ),
    (lambda s: s.load_state_dict({**s.state_dict(), "session.tracker": "cutie"}), "made with tracker cutie"),
    (lambda s: s.load_state_dict({**s.state_dict(), "session.height": "high"}), "damaged"),
    (
        lambda s: s.load_state_dict({k: v for k, v in s.state_dict().items() if k.startswith("session.")}),
        "the state is damaged, or of a session with other settings",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_a_wrong_call_is_one_error_and_changes_nothing(call: Callable[[Session], object], message: str) -> None:
    def prepared() -> Session:
        session = seen()
        session.add(mask=square(5, 5), label="box")
        session.step(FRAMES[1])
        session.add(mask=square(30, 40))
        session.remove(session.add(mask=square(20, 20, 3)))
        return session

    session, untouched = prepared(), prepared()
    with pytest.raises(UsageError, match=message) as caught:
        call(session)
    assert "\n" not in str(caught.value)
    assert same(session.masks, untouched.masks) and session.objects == (1, 2)
    session.correct(1, mask=square(1, 1))
    untouched.correct(1, mask=square(1, 1))
    assert session.add(mask=square(20, 20)) == untouched.add(mask=square(20, 20)) == 4
    assert same(session.step(FRAMES[2]), untouched.step(FRAMES[2]))


def test_numbers_of_any_library_are_numbers() -> None:
    prompt = Prompt(np.int64(0), np.int64(3), mask=square(5, 5))  # type: ignore[arg-type]
    assert (type(prompt.frame_index), type(prompt.object_id)) == (int, int)
    for wrong in (1.5, "1", None, True):
        with pytest.raises(UsageError, match="expected frame >= 0 and object >= 1"):
            Prompt(0, wrong, mask=square(5, 5))  # type: ignore[arg-type]
    session = seen()
    session.add(mask=square(5, 5))
    session.correct(np.int64(1), points=np.array([[7, 7]]), labels=np.array([1.0]))  # type: ignore[arg-type]
    assert session.state_dict()
    session.remove(np.int64(1))  # type: ignore[arg-type]
    assert session.state_dict() and session.objects == ()


def test_two_ids_for_one_mask_on_a_frame_are_an_error() -> None:
    session = seen()
    session.add(mask=square(5, 5, 4))
    with pytest.raises(UsageError, match="object 1 has this very mask already"):
        session.add(mask=square(5, 5, 4))
    session.add(mask=square(20, 20, 6))
    session.add(mask=square(26, 20, 6))
    with pytest.raises(UsageError, match="object 1 on frame 0: its whole mask belongs to object 2, 3 too"):
        session.correct(1, mask=square(20, 20, 6) | square(26, 20, 6))
    assert session.masks.ids == (1, 2, 3)


@pytest.mark.parametrize("call", ["add", "correct", "remove", "preview", "state_dict", "masks"])
def test_before_the_first_frame_there_is_nothing_to_say(call: str) -> None:
    calls: Mapping[str, Callable[[Session], object]] = {
        "add": lambda s: s.add(box=BOX),
        "correct": lambda s: s.correct(1, box=BOX),
        "remove": lambda s: s.remove(1),
        "preview": lambda s: s.preview(box=BOX),
        "state_dict": lambda s: s.state_dict(),
        "masks": lambda s: s.masks,
    }
    session = toy_session()
    with pytest.raises(UsageError, match=r"there is no frame yet: call step\(frame\) first"):
        calls[call](session)
    session.step(FRAMES[0])
    assert session.add(box=BOX) == 1


@pytest.mark.parametrize("tracker", [DriftMasks, xmem, cutie])
def test_a_session_is_set_back_and_goes_on_from_there(tracker: Callable[[], Tracker]) -> None:
    session = Session(tracker=tracker(), model=tiny_sam(), refine="none")
    session.step(FRAMES[0])
    session.add(mask=square(5, 5), label="box")
    session.step(FRAMES[1])
    saved = session.state_dict()
    kept = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in saved.items()}
    expected = [session.step(frame) for frame in FRAMES[2:]]
    session.add(mask=square(30, 40))
    for key, value in kept.items():
        assert torch.equal(value, saved[key]) if isinstance(value, torch.Tensor) else value == saved[key]  # type: ignore[arg-type]
    for other in (session, Session(tracker=tracker(), model=tiny_sam(), refine="none")):
        other.load_state_dict(saved)
        with pytest.raises(UsageError, match="no frame yet"):
            other.add(box=BOX)
        assert all(same(other.step(frame), masks) for frame, masks in zip(FRAMES[2:], expected, strict=True))
        assert other.add(mask=square(30, 40)) == 2


def test_a_state_of_a_tracker_with_other_options_is_refused() -> None:
    def session(**options: Any) -> Session:
        return toy_session(tracker=build_tracker("xmem", {"size": -1, **options}))

    one, other = session(), session(size=24)
    one.step(FRAMES[0])
    other.step(FRAMES[0])
    other.add(mask=square(5, 5))
    with pytest.raises(UsageError, match="made with tracker option size=-1, this session has size=24"):
        other.load_state_dict(one.state_dict())
    assert other.objects == (1,) and other.step(FRAMES[1]).frame_index == 1
    official = toy_session(tracker=build_tracker("xmem", {"size": -1, "memory": "official"}))
    with pytest.raises(UsageError, match="made with tracker option memory=correct, this session has memory=official"):
        official.load_state_dict(one.state_dict())


def test_nobody_misses_an_object_that_was_removed() -> None:
    session = toy_session()
    session.step(FRAMES[0])
    for place in (5, 30):
        session.add(mask=square(place, place))
    session.step(FRAMES[1])
    session.remove(1)
    for frame in FRAMES[2:]:
        session.step(frame)
    assert all(found.object_id != 1 for found in session.suggest(5))


def test_frames_come_in_many_forms() -> None:
    rgb = FRAMES[0].rgb
    read_only = rgb.copy()
    read_only.flags.writeable = False
    expected = seen_first(FRAMES[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item in (rgb, read_only, Image.fromarray(rgb), np.asfortranarray(rgb)):
            assert same(seen_first(item), expected)
        assert same(seen_first(np.ascontiguousarray(rgb[..., ::-1]), bgr=True), expected)
        assert same(seen_first(Image.fromarray(rgb), bgr=True), expected)
    assert not same(seen_first(np.ascontiguousarray(rgb[..., ::-1])), expected)


def test_what_becomes_of_the_users_arrays_changes_nothing() -> None:
    expected, buffer, mask = seen(2), FRAMES[0].rgb.copy(), square(5, 5)
    session = toy_session()
    session.step(buffer)
    buffer[:] = FRAMES[1].rgb  # cameras write each frame into the same array
    session.step(Frame(1, 1, 1 / 24, buffer))
    buffer[:] = 0
    for one in (expected, session):
        assert one.add(box=BOX) == 1
        assert one.add(mask=mask) == 2
        mask[:] = square(30, 40)
        assert one.add(mask=mask) == 3
        mask[:] = square(5, 5)
    with pytest.raises(ValueError, match="read-only"):
        session.masks.label_map[:] = 0
    for one in (expected, session):
        one.correct(1, points=(40, 5))
    assert same(session.masks, expected.masks)
    assert np.array_equal(mask_of(session.masks, 3), square(30, 40))


def seen_first(item: Any, **settings: Any) -> FrameMasks:
    session = toy_session(refine="box", **settings)
    session.step(item)
    session.add(box=BOX)
    return session.masks


def test_arrays_are_counted_and_frames_bring_their_own_numbers() -> None:
    session = toy_session(fps=10)
    assert [session.step(frame.rgb).frame_index for frame in FRAMES[:2]] == [0, 1]
    assert session.masks.time_s == 0.1
    assert session.step(Frame(np.int64(7), 0, 0.7, FRAMES[2].rgb)).frame_index == 7  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"frame 7\.5: its index must be a whole number"):
        session.step(Frame(7.5, 0, 0.7, FRAMES[2].rgb))  # type: ignore[arg-type]
    assert session.step(FRAMES[3].rgb).frame_index == 8


def test_after_a_reset_everything_begins_anew() -> None:
    session = seen(3)
    session.add(mask=square(5, 5), label="box")
    session.reset()
    with pytest.raises(UsageError, match="no frame yet"):
        session.masks  # noqa: B018
    small = np.ascontiguousarray(FRAMES[0].rgb[:40])
    assert session.step(small).ids == ()
    assert session.add(mask=square(5, 5)[:40]) == 1
    assert session.masks.labels == (None,)
    assert session.step(small).frame_index == 1


class Sees:
    """A detector that sees two squares on every frame."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def detect(self, frame: Frame) -> list[Proposal]:
        self.asked.append(frame.index)
        return [Proposal(square(5, 5), 0.9, "cat"), Proposal(square(30, 40), 0.8, "dog")]


def test_a_session_searches_when_it_is_asked_to_and_what_it_found_keeps_its_ids() -> None:
    detector = Sees()
    session = seen(max_objects=2, detector=detector)
    assert session.masks.ids == (1, 2) and session.masks.labels == ("cat", "dog")
    assert session.add(mask=square(20, 20, 5)) == 3
    assert session.masks.ids == (1, 2, 3) and session.masks.labels == ("cat", "dog", None)
    session.correct(1, mask=square(6, 6))
    session.remove(2)
    assert session.masks.ids == (1, 3)
    assert np.array_equal(mask_of(session.masks, 1), square(6, 6))
    assert session.step(FRAMES[1]).ids == (1, 3)
    assert detector.asked == [0]
    assert seen().masks.ids == ()  # nobody asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_objects": 0}, "max_objects 0: a whole number of at least 1"),
        ({"detect_every": -1, "max_objects": 1}, "detect_every -1"),
        ({"detect_every": 5}, "detect_every is for a session that searches: give max_objects too"),
        ({"detector": Sees()}, "detector is for a session that searches"),
        ({"fps": 0}, "fps 0: a number over 0"),
        ({"refine": "best"}, "refine 'best'"),
        ({"tracker": "xmen"}, "did you mean 'xmem'"),
        ({"tracker_options": {"size": 3}}, "tracker_options are for a tracker that is named"),
        ({"tracker": BoxesEverywhere(1), "refine": "box", "max_objects": 2}, "finds objects automatically"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        toy_session(**settings)


def test_a_tracker_that_holds_frames_back_is_none_for_a_session() -> None:
    tracker = DriftMasks()
    tracker.lookahead = 3
    with pytest.raises(UsageError, match=r"tracker DriftMasks holds frames back.*: use segment_frames"):
        toy_session(tracker=tracker)


def test_a_tracker_that_finds_its_objects_says_so_at_the_call() -> None:
    session = seen(tracker=BoxesEverywhere(1), refine="box")
    assert session.objects == session.masks.ids == (1,)
    for call in (lambda: session.add(box=BOX), lambda: session.remove(1), lambda: session.correct(1, box=BOX)):
        with pytest.raises(UsageError, match="tracker BoxesEverywhere finds objects automatically"):
            call()
    assert session.step(FRAMES[1]).ids == (1,)


def test_a_closed_session_says_so() -> None:
    with toy_session() as session:
        session.step(FRAMES[0])
        assert repr(session) == "Session(DriftMasks, 1 frames, objects [])"
        session.close()
    session.close()
    assert repr(session) == "Session(DriftMasks, closed)"
    calls = [lambda: session.step(FRAMES[1]), lambda: session.add(box=BOX), session.reset, lambda: session.objects]
    for call in calls:
        with pytest.raises(UsageError, match="the session is closed; make another one"):
            call()


def test_the_example_of_the_page_runs() -> None:
    page = (paths.ROOT / "docs" / "sessions.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"frames": [frame.rgb for frame in frames(4, 360, 640)]}
    exec(example.replace("Session(", "Session(refine='none', zoom='never', ", 1), names)
    assert names["masks"].frame_index == 3 and names["ball"] not in names["masks"].ids
    assert (names["dog"], names["ball"]) == (1, 2)
    assert names["masks"].masks.shape[1:] == names["masks"].label_map.shape == (360, 640)


def test_a_session_names_the_frames_to_correct_also_the_one_just_seen() -> None:
    class Doubts(DriftMasks):
        """It is unsure on two frames, one of which is the last."""

        def step(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> Any:
            (tracks,) = super().step(frame, prompts)
            return [replace(tracks, scores=tracks.scores * (0.2 if frame.index in (3, 5) else 1.0))]

    with toy_session(tracker=Doubts()) as session:
        assert session.suggest(3) == []
        session.step(FRAMES[0])
        dog = session.add(box=BOX, label="dog")
        for frame in FRAMES[1:]:
            session.step(frame)
        found = session.suggest(2)
        assert sorted(one.frame for one in found) == [3, 5]
        assert {(one.object_id, one.name) for one in found} == {(dog, "dog")}
        assert all("the tracker is unsure (score 0.20)" in one.reason for one in found)
        session.correct(dog, box=BOX)
        assert 5 not in [one.frame for one in session.suggest(3)]
        with pytest.raises(UsageError, match="count"):
            session.suggest(0)
        session.reset()
        assert session.suggest() == []
