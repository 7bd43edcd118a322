"""What `vidseg run` prints: to people, to scripts, and as settings of the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from media import write_video
from toys import KeepMasks, frames, tiny_sam
from vidseg_pipelines import build
from vidseg_pipelines.cli import main


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sam = tiny_sam()
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: sam)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    video = write_video(tmp_path / "clip.mp4", [frame.rgb for frame in frames(6, 48, 64)])
    return ["run", str(video), "--box", "5,5,30,25", "--refine", "none", "--output", str(tmp_path / "out")]


def test_the_result_as_one_object(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["frames"], result["objects"]) == ("done", 6, [1])
    assert str(tmp_path / "out" / "overlay.mp4") in result["outputs"]
    assert main([*command, "--json"]) == 2  # the folder is taken
    told = capsys.readouterr()
    assert (json.loads(told.out)["status"], json.loads(told.out)["exit_code"]) == ("failed", 2)
    assert "out" in json.loads(told.out)["error"] and told.err.startswith("vidseg: ")


def test_events_from_start_to_done(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json-log", "--label", "7=bear"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["start", "object", "progress", "warning", "done"]
    assert (events[0]["frames"], events[0]["width"], events[0]["height"]) == (6, 64, 48)
    assert events[1] == {"event": "object", "id": 1, "label": None, "frame": 0}
    assert "no object 7" in events[3]["text"]
    assert (events[4]["status"], events[4]["frames"], events[4]["objects"]) == ("done", 6, [1])


def test_an_error_is_an_event_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "none.mp4"), "--json-log"]) == 3
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["exit_code"]) == ("error", 3)
    assert "none.mp4" in event["text"]


def test_quiet_prints_warnings_alone(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--quiet", "--label", "7=bear"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("warning: ") and len(told.err.splitlines()) == 1


def test_verbose_says_with_what_and_how_long(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--verbose", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "6 frames, 1 object (1), " in out
    assert "computed on cpu in float32 (the CPU has neither AMX nor AVX512-BF16) with 1 threads" in out
    assert "weights of the model: compact" in out and "\nseconds: " in out


def test_run_json_repeats_the_run(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--label", "1=bear"]) == 0
    manifest = tmp_path / "out" / "run.json"
    assert main(["run", "--config", str(manifest), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "masks.jsonl").read_bytes() == (tmp_path / "out" / "masks.jsonl").read_bytes()
    assert (
        json.loads((tmp_path / "again" / "run.json").read_bytes())["config"]
        == json.loads(manifest.read_bytes())["config"]
    )


def test_a_run_whose_prompts_came_from_python_is_not_repeated(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    manifest = json.loads((tmp_path / "out" / "run.json").read_bytes())
    manifest["prompts"] = {"object 1 on frame 0": "digest"}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert main(["run", "--config", str(tmp_path / "run.json")]) == 2
    assert "given in Python" in capsys.readouterr().err
