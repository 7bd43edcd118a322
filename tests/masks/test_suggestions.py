"""Which frames are named for a correction, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from vidseg.errors import UsageError
from vidseg.masks import encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.suggestions import FRAMES, OBJECTS, Suggestion, Suggestions, least_distance
from vidseg.masks.trust import Signals

GOOD = Signals(0.9, 0.97, 0.97, 1.0, 0.0, 0.0, 1.0)


def result(
    index: int,
    doubtful: Mapping[int, Signals | None] | None = None,
    ids: Sequence[int] = (1,),
    side: int = 10,
    score: float = 0.97,
) -> FrameMasks:
    mask = np.zeros((20, 30), np.bool_)
    mask[:side, :side] = True
    n = len(ids)
    signals = tuple((doubtful or {}).get(i, GOOD) for i in ids)
    labels = tuple("dog" if i == 1 else None for i in ids)
    scores, boxes = np.full(n, score, np.float32), np.tile(np.array([[0, 0, side, side]], np.float32), (n, 1))
    return FrameMasks(index, index, index / 25, tuple(ids), boxes, scores, labels, (encode(mask),) * n, signals=signals)


def bad(iou: float) -> Signals:
    return Signals(0.5, iou, 0.8, 1.0, 0.0, 0.0, 1.0)


def best(results: Sequence[FrameMasks], count: int) -> list[Suggestion]:
    suggestions = Suggestions()
    for one in results:
        suggestions.add(one)
    return suggestions.best(count)


def test_a_doubtful_frame_is_named_with_object_and_reason() -> None:
    (one,) = best([result(k, {1: bad(0.1)} if k in (7, 8) else None) for k in range(20)], 1)
    assert (one.frame, one.object_id, one.label) == (7, 1, "dog")
    assert 0.4 < one.trust < 0.7
    assert one.to_dict()["reason"] == "dog: tracker and HQ-SAM disagree (IoU 0.10)"
    assert str(one).startswith("frame 7 (0.28 s), trust 0.")


def test_frames_are_apart_in_time_and_the_one_that_helps_most_comes_first() -> None:
    doubtful = {**dict.fromkeys(range(20, 23), 0.3), **dict.fromkeys(range(40, 43), 0.05)}
    found = best([result(k, {1: bad(doubtful[k])} if k in doubtful else None) for k in range(60)], 2)
    assert [one.frame for one in found] == [40, 20]
    many = best([result(k, {1: bad(0.1 if k % 2 else 0.3)}) for k in range(60)], 30)
    frames = sorted(one.frame for one in many)
    assert len(frames) > 5
    assert min(np.diff(frames)) >= least_distance(60) == 6


def test_a_doubt_that_lasts_is_named_where_it_begins() -> None:
    found = best([result(k, {1: bad(0.2)} if 20 <= k < 26 else None) for k in range(40)], 1)
    assert [one.frame for one in found] == [20]


def test_where_nothing_is_doubtful_frames_are_spread_over_time() -> None:
    found = best([result(k) for k in range(40)], 3)
    assert sorted(one.frame for one in found) == [10, 20, 30]
    assert found[0].to_dict()["reason"] == "dog: far from every corrected frame"
    corrected = Signals(0.5, 0.1, 0.97, since=0)
    (one,) = best([result(k, {1: corrected} if k == 20 else None) for k in range(60)], 1)
    assert one.frame == 40


def test_no_frame_near_a_corrected_one_is_named() -> None:
    results = [result(k, {1: bad(0.2)} if k < 30 else None) for k in range(40)]
    results[29] = result(29, {1: Signals(0.5, 0.1, 0.97, since=0)})
    found = best(results, 6)
    assert len(found) == 6
    assert min(abs(one.frame - 29) for one in found) >= least_distance(40)


def test_the_most_doubtful_object_of_a_frame_is_named() -> None:
    doubtful = {1: bad(0.4), 2: bad(0.1)}
    (one,) = best([result(k, doubtful if k in (3, 4) else None, ids=(1, 2)) for k in range(9)], 1)
    assert (one.object_id, one.name) == (2, "object 2")


def test_an_object_that_is_lost_is_named_where_it_vanishes() -> None:
    (one,) = best([result(k, ids=(1, 2) if k < 15 else (2,)) for k in range(30)], 1)
    assert (one.frame, one.to_dict()["reason"]) == (15, "dog: is not seen any more")


def test_journals_without_signals_say_what_score_and_area_say() -> None:
    def old(index: int) -> FrameMasks:
        return result(index, {1: None}, side=5 if index == 10 else 10, score=0.2 if index == 20 else 0.97)

    found = {one.frame: one.reason for one in best([old(k) for k in range(30)], 3)}
    assert found[10] == "75% smaller than one frame before"
    assert found[20] == "the tracker is unsure (score 0.20)"


@pytest.mark.parametrize("results", [[], [result(0, ids=())]])
def test_where_there_is_no_object_nothing_is_named(results: list[FrameMasks]) -> None:
    assert best(results, 5) == []
    with pytest.raises(UsageError, match="suggest 0 frames: expected at least 1"):
        best(results, 0)


def test_a_short_run_names_fewer_frames() -> None:
    assert [one.frame for one in best([result(k) for k in range(3)], 5)] == [1]


def test_memory_is_bounded_and_the_worst_frame_of_a_long_video_stays() -> None:
    suggestions, ids = Suggestions(), tuple(range(1, OBJECTS + 5))
    results = {False: result(0, ids=ids), True: result(0, dict.fromkeys(ids, bad(0.05)), ids=ids)}
    for index in range(3 * FRAMES):
        suggestions.add(FrameMasks(index, *_rest(results[5001 <= index < 5009])))
    assert len(suggestions._rows) <= FRAMES
    assert max(len(row.looks) for row in suggestions._rows) == OBJECTS
    assert 5001 in [one.frame for one in suggestions.best(3)]


def _rest(masks: FrameMasks) -> tuple:
    return (
        *(masks.pts, masks.time_s, masks.ids, masks.boxes, masks.scores, masks.labels, masks.rles),
        *(None, None, None, masks.signals),
    )


def test_a_video_that_goes_back_begins_anew_from_there() -> None:
    suggestions = Suggestions()
    for index in range(20):
        suggestions.add(result(index, {1: bad(0.1)} if index >= 15 else None))
    looked = suggestions.with_frame(result(20, {1: bad(0.1)}))
    assert [row.frame for row in looked._rows] == list(range(21))
    assert suggestions.best(1)[0].frame == 15
    suggestions.add(result(12))
    assert suggestions.best(1)[0].frame < 12


def test_a_frame_to_avoid_keeps_its_neighbours_from_being_named() -> None:
    suggestions = Suggestions()
    for index in range(30):
        suggestions.add(result(index, {1: bad(0.1)} if 12 <= index < 16 else None))
    assert suggestions.best(1)[0].frame == 12
    assert abs(suggestions.best(1, avoid=[13])[0].frame - 13) >= least_distance(30)
