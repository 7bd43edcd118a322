"""Signals, and the number and the words that are made of them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from vidseg.masks.trust import Signals, ratio, reason, trust

GOOD = Signals(0.9, 0.97, 0.97, 1.02, 0.03, 0.1, 1.0, 5)


def test_a_mask_that_everything_speaks_for_is_trusted_and_one_that_all_speaks_against_is_not() -> None:
    bad = Signals(0.2, 0.3, 0.5, 0.2, 0.8, 0.9, 0.4, 30)
    assert trust(GOOD, 0.98) > 0.9
    assert trust(bad, 0.5) < 0.1


@pytest.mark.parametrize(
    "worse",
    [{"certainty": 0.2}, {"tracker_iou": 0.2}, {"hq_iou": 0.3}, {"area_jump": 0.4}, {"area_jump": 2.5}],
)
def test_every_signal_lowers_the_trust_when_it_gets_worse(worse: dict[str, float]) -> None:
    values = {f.name: getattr(GOOD, f.name) for f in fields(Signals)}
    assert trust(Signals(**(values | worse)), 0.98) < trust(GOOD, 0.98) - 0.01


def test_what_the_user_corrected_is_sure_whatever_was_measured() -> None:
    assert trust(Signals(certainty=0.0, tracker_iou=0.0, since=0), 0.1) == 1.0
    assert trust(Signals(certainty=0.0, tracker_iou=0.0, since=1), 0.1) < 0.5


def test_without_signals_the_score_decides() -> None:
    assert trust(None, 0.99) > trust(None, 0.8) > trust(None, 0.4)
    assert trust(None, 0.9) == trust(Signals(), 0.9)


def test_the_reason_is_what_is_unusual() -> None:
    assert reason(Signals(0.9, 0.41, 0.97), 0.97) == "tracker and HQ-SAM disagree (IoU 0.41)"
    assert reason(Signals(0.9, 0.97, 0.97, area_jump=0.4), 0.97) == "60% smaller than one frame before"
    assert reason(None, 0.31) == "the tracker is unsure (score 0.31)"


@pytest.mark.parametrize(
    "values",
    [
        {"certainty": 1.2},
        {"certainty": "high"},
        {"tracker_iou": -0.1},
        {"hq_iou": float("nan")},
        {"area_change": 0},
        {"area_jump": float("inf")},
        {"since": -1},
        {"since": 1.5},
        {"look_change": True},
    ],
)
def test_impossible_values_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"signal {next(iter(values))} .* expected"):
        Signals(**values)  # type: ignore[arg-type]


def test_only_what_is_known_is_written_and_it_comes_back() -> None:
    some = Signals(certainty=0.5, since=3)
    assert some.to_dict() == {"certainty": 0.5, "since": 3}
    for signals in (some, GOOD, Signals()):
        assert Signals.from_dict(signals.to_dict()) == signals
    assert Signals.from_dict({"certainty": 0.5, "of_a_later_version": []}) == Signals(certainty=0.5)


def test_a_ratio_is_never_zero() -> None:
    assert ratio(1, 3) == 0.3333
    assert ratio(1, 10**9) > 0
