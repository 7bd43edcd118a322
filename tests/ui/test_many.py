"""Many objects and frames on the server's side."""

import json
from pathlib import Path

from ui_toys import fill
from vidseg_pipelines.ui.document import Document
from vidseg_pipelines.ui.results import Results
from vidseg_pipelines.ui.trust import hints


def test_a_journal_is_kept_on_disk_and_read_by_frame(tmp_path: Path) -> None:
    fill(tmp_path / "run", 3, 50, (8, 16))
    results = Results(tmp_path / "run")
    assert results.frames == list(range(50))
    assert [o["id"] for o in results.objects(31)] == [1, 2, 3]
    assert results.facts[31] == {1: (3, 0.9), 2: (3, 0.9), 3: (3, 0.9)}


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


def test_hints_name_the_jump_first_and_keep_apart() -> None:
    facts = {n: {1: (100, 0.95)} for n in range(100)}
    facts[40] = {1: (30, 0.95)}
    facts[41] = {1: (30, 0.95)}
    facts[70] = {1: (100, 0.6)}
    found = hints(facts, drawn=[0], seen=[], name=lambda i: "bear")
    assert [h.frame for h in found[:2]] == [40, 70]
    assert found[0].why == "bear shrinks by 70% from one frame to the next"
    assert "unsure of bear" in found[1].why
    assert all(abs(a.frame - b.frame) > 2 for a in found for b in found if a is not b)
    assert [h.frame for h in hints(facts, drawn=[40], seen=[70], name=str)] == []


def test_a_mask_that_drifts_slowly_is_doubted() -> None:
    facts = {n: {1: (round(1000 * 1.06**n), 0.97)} for n in range(40)}
    found = hints(facts, drawn=[0], seen=[], name=lambda i: "bunny")
    assert found
    assert found[0].why == "bunny grows by 101% from 12 frames before"
    assert hints({n: {1: (1000 + 5 * n, 0.97)} for n in range(40)}, drawn=[0], seen=[], name=str) == []


def test_a_document_comes_back_as_it_was() -> None:
    document = Document()
    first = document.new()
    document.rename(first, "Bär\x00 im  Wald")
    document.keys = {3: {first: {"points": [[1.5, 2.0, 1]]}}}
    again = Document.of(document.text())
    assert again == document
    assert again.items[first].name == "Bär im Wald"
    assert again.new() == 2
