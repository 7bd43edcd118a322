"""Undo and redo outlive the program."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ui_toys import toy_engine, toy_video
from vidseg.config import RunConfig
from vidseg.outputs.layout import CHANGES, HISTORY, JOURNAL
from vidseg_pipelines.ui import history
from vidseg_pipelines.ui.history import History, Lines
from vidseg_pipelines.ui.library import Library
from vidseg_pipelines.ui.project import Project
from vidseg_pipelines.ui.propagation import Propagation

Open = Callable[[], Project]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    toy_video(tmp_path / "square.mp4", 8)
    library = Library(tmp_path / "square.mp4", tmp_path / "runs")
    return lambda: Project(library.clips()[0], toy_engine(), RunConfig(save="none"))


def steps_of(project: Project) -> tuple[list[str], list[str]]:
    return [step.what for step in project.history.done], [step.what for step in project.history.undone]


def draw_name_and_run(project: Project) -> None:
    project.paint(2, None, [(40, 40), (80, 40)], 6, erase=False)
    project.rename(1, "bar")
    run = Propagation(project, 2, "forward")
    while run.step():
        pass
    run.close()


def test_steps_can_be_undone_and_redone_when_the_program_comes_back(opened: Open) -> None:
    project = opened()
    draw_name_and_run(project)
    made = [project.results.line(n) for n in range(8)]
    project.close()

    project = opened()
    assert steps_of(project) == (["brush", "rename", "run"], [])
    assert project.undo() == "run"
    assert project.results.frames == [2]
    assert project.undo() == "rename"
    project.close()

    project = opened()
    assert steps_of(project) == (["brush"], ["run", "rename"])
    assert project.document.items[1].name == ""
    assert (project.redo(), project.redo()) == ("rename", "run")
    project.settle()
    assert [project.results.line(n) for n in range(8)] == made
    assert project.document.items[1].name == "bar"
    assert [project.undo() for _ in range(4)] == ["run", "rename", "brush", None]
    assert (project.results.frames, project.document.items) == ([], {})
    project.redo()
    project.paint(5, None, [(40, 40)], 6, erase=False)
    assert steps_of(project) == (["brush", "brush"], [])
    project.close()


def test_a_kill_keeps_the_steps_up_to_the_frame_that_was_computed(opened: Open) -> None:
    project = opened()
    project.paint(3, None, [(40, 40), (80, 40)], 6, erase=False)
    run = Propagation(project, 3, "both")
    for _ in range(6):
        assert run.step()
    assert (project.folder / CHANGES).stat().st_size > 0
    project._stack.close()  # as a kill, without saving anything
    step = project.history.done[-1].path
    step.write_bytes(step.read_bytes() + b'7\t{"frame":7,')

    project = opened()
    assert project.results.frames == [1, 2, 3, 4, 5, 6, 7]
    assert project.undo() == "run"
    assert project.results.frames == [3]
    project.close()


def test_a_step_that_fails_is_none(opened: Open) -> None:
    project = opened()
    with pytest.raises(ZeroDivisionError), project.step("fails"):
        project.document.new()
        _ = 1 / 0
    assert steps_of(project) == ([], [])
    assert project.document.items == {}
    project.close()
    assert not (project.folder / HISTORY).exists()


def test_steps_of_another_journal_are_forgotten(opened: Open) -> None:
    project = opened()
    draw_name_and_run(project)
    project.close()
    journal = project.folder / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"score":1', b'"score":0'))
    project = opened()
    assert steps_of(project) == ([], [])
    project.close()
    assert not (project.folder / HISTORY).exists()


def test_steps_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "STEPS", 5)
    monkeypatch.setattr(history, "HISTORY_BYTES", 10_000)
    steps = History(tmp_path)
    for n in range(9):
        steps.begin(str(n), "{}")
    assert [step.what for step in steps.done] == ["4", "5", "6", "7", "8"]
    large = steps.begin("large", "{}")
    for frame in range(20):
        steps.note(large, frame, b"x" * 1000 + b"\n")
    steps.begin("small", "{}")
    assert [step.what for step in steps.done] == ["small"]
    assert len(list((tmp_path / HISTORY).glob("*.jsonl"))) == 1


def test_only_what_a_step_replaced_first_comes_back(tmp_path: Path) -> None:
    steps, found = History(tmp_path), []

    def restore(document: str, lines: Lines) -> None:
        found.append((document, list(lines)))

    step = steps.begin("twice", "before")
    steps.note(step, 4, b'{"frame":4}\n')
    steps.note(step, 4, b'{"frame":4,"new":1}\n')
    steps.note(step, 9, None)
    steps.undo("after", lambda frame: b"now %d\n" % frame, restore)
    steps.redo("before", lambda frame: None, restore)
    assert found == [("before", [(4, b'{"frame":4}\n'), (9, None)]), ("after", [(4, b"now 4\n"), (9, b"now 9\n")])]
