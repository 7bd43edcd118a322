"""Many objects and frames on the server's side."""

import json
from pathlib import Path

import pytest

from ui_toys import fill
from vidseg_pipelines.ui.document import Document
from vidseg_pipelines.ui.trust import hints, mark
from vidseg_pipelines.web.results import Fact, Results


def test_a_journal_is_kept_on_disk_and_read_by_frame(tmp_path: Path) -> None:
    fill(tmp_path / "run", 3, 50, (8, 16))
    results = Results(tmp_path / "run")
    assert results.frames == list(range(50))
    assert [o["id"] for o in results.objects(31)] == [1, 2, 3]
    assert results.facts[31] == dict.fromkeys((1, 2, 3), Fact(3, 0.9, None))


def test_changes_out_of_order_are_settled_into_the_journal(tmp_path: Path) -> None:
    fill(tmp_path / "run", 1, 10, (8, 16))
    journal = tmp_path / "run" / "masks.jsonl"
    results = Results(tmp_path / "run")
    new = (results.line(9) or b"").replace(b'"frame":9', b'"frame":3').replace(b"0.9", b"0.5")
    results.put(3, new)
    results.put(5, None)
    assert (results.line(3), results.line(5)) == (new, None)
    assert b"0.5" not in journal.read_bytes()
    again = Results(tmp_path / "run")  # as after a kill
    assert (again.line(3), again.line(5), again.frames) == (new, None, [0, 1, 2, 3, 4, 6, 7, 8, 9])
    lines = [json.loads(line)["frame"] for line in journal.read_bytes().splitlines()]
    assert lines == again.frames
    again.close()
    assert not (tmp_path / "run" / "changes.jsonl").exists()


def test_names_go_into_the_journal_when_it_is_settled(tmp_path: Path) -> None:
    fill(tmp_path / "run", 2, 3, (8, 16))
    results = Results(tmp_path / "run")
    results.settle({1: "bear", 2: ""})
    labels = [[o["label"] for o in results.objects(n)] for n in range(3)]
    assert labels == [["bear", None]] * 3


def lines(frame: int) -> list[dict]:
    """Frame 70 of the journal, on which tracker and HQ-SAM disagree."""
    return [{"id": 1, "signals": {"tracker_iou": 0.3}}] if frame == 70 else []


def test_hints_say_what_the_journal_says_and_keep_apart() -> None:
    facts = {n: {1: Fact(100, 0.95, 0.95 if n > 50 else None)} for n in range(100)}
    facts[40] = {1: Fact(20, 0.95, None)}  # without signals: of an earlier version
    facts[70] = {1: Fact(100, 0.95, 0.3)}
    found = hints(facts, lines, drawn=[0], seen=[], name=lambda i: "bear")
    assert [(h.frame, h.why) for h in found] == [
        (40, "bear: 80% smaller than one frame before"),
        (70, "bear: tracker and HQ-SAM disagree (IoU 0.30)"),
    ]
    assert found[1].doubt == pytest.approx(0.7)
    assert hints(facts, lines, drawn=[70], seen=[39], name=str) == []


def test_marks_are_the_trust_of_the_journal() -> None:
    sure, unsure, old = Fact(100, 0.9, 0.998), Fact(100, 0.9, 0.2), Fact(100, 0.9, None)
    assert [mark(sure, now, drawn=False) for now in (sure, unsure)] == [253, 52]
    assert mark(sure, Fact(100, 0.9, 1.0), drawn=False) == 255, "given by the user in the run"
    assert mark(sure, unsure, drawn=True) == 255
    assert mark(old, old, drawn=False) > mark(Fact(300, 0.9, None), old, drawn=False)


def test_a_document_comes_back_as_it_was() -> None:
    document = Document()
    first = document.new()
    document.rename(first, "Bär\x00 im  Wald")
    document.keys = {3: {first: {"points": [[1.5, 2.0, 1]]}}}
    again = Document.of(document.text())
    assert again == document
    assert again.items[first].name == "Bär im Wald"
    assert again.new() == 2
