"""``vidseg suggest`` reads runs of this version and of earlier ones, finished or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidseg.masks import encode
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.trust import Signals
from vidseg.outputs.journal import journal_line, parse_line
from vidseg.outputs.layout import JOURNAL, MANIFEST
from vidseg_pipelines.cli import main

MASK = np.ones((4, 6), np.bool_)


def run_folder(tmp_path: Path, *, signals: bool, half_line: bool = False) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = []
    for k in range(40):
        sure = not (9 <= k < 13 or 30 <= k < 32)
        masks = FrameMasks(
            *(k, k, k / 25, (3,), np.array([[0, 0, 6, 4]], np.float32)),
            *(np.array([0.97 if sure else 0.3], np.float32), ("dog",), (encode(MASK),)),
            signals=(Signals(0.9, 0.97 if sure else 0.41, 0.97) if signals else None,),
        )
        lines.append(journal_line(masks))
    (folder / JOURNAL).write_bytes(b"".join(lines) + (b'{"frame":40,' if half_line else b""))
    return folder


def nothing_in(masks: FrameMasks) -> FrameMasks:
    empty = np.zeros((0, 4), np.float32)
    return FrameMasks(masks.frame_index, masks.pts, masks.time_s, (), empty, np.zeros(0, np.float32), (), ())


@pytest.mark.parametrize("signals", [True, False])
def test_frames_are_printed_with_object_and_reason(
    signals: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, signals=signals, half_line=True)
    assert main(["suggest", str(folder), "--frames", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(" (")[0] for line in lines] == ["frame 9", "frame 30"]
    assert all(": dog: " in line for line in lines)


def test_nobody_misses_an_object_that_was_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path, signals=True)
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    without = [journal_line(nothing_in(parse_line(line))) if k >= 20 else line for k, line in enumerate(lines)]
    (folder / JOURNAL).write_bytes(b"".join(without))
    assert main(["suggest", str(folder)]) == 0
    assert "is not seen any more" in capsys.readouterr().out
    (folder / MANIFEST).write_text(json.dumps({"config": {"remove": ["3@20"]}}))
    assert main(["suggest", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "frame 9 " in told and "is not seen any more" not in told


def test_json_is_a_list_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest", str(run_folder(tmp_path, signals=True)), "--frames", "1", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["frame"], one["time_s"], one["id"], one["label"]) == (9, 0.36, 3, "dog")
    assert 0 <= one["trust"] < 0.7
    assert one["reason"].startswith("dog: ")


def test_runs_without_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(b"")
    assert main(["suggest", str(folder)]) == 0
    assert capsys.readouterr().out == "no objects: there is nothing to correct\n"
    assert main(["suggest", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [(["{none}"], 3, "contains no masks.jsonl; give the output folder of a run"), (["{run}", "--frames", "0"], 2, "0")],
)
def test_what_is_wrong_is_one_line(
    argv: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path, signals=True)
    assert main(["suggest", *(text.format(run=run, none=tmp_path / "none") for text in argv)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
