from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

import paths
from vidseg_pipelines import api
from vidseg_pipelines.cli import main
from vidseg_pipelines.commands import doctor_checks


def examined(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code of the command, and its lines by name."""
    code = main(["doctor", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    assert (told["status"] == "ok") == (code == 0)
    return code, {check["name"]: check for check in told["checks"]}


def test_a_working_installation_segments_two_frames(capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = examined(capsys)
    assert code == 0
    assert checks["run of two frames"]["value"].startswith("masks of ")
    assert {"torch", "encoder of overlay.mp4", "extra ray", "trackers", "memory", "folder of results"} <= checks.keys()


def test_a_run_that_fails_is_exit_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **settings: Any) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(api, "segment_frames", broken)
    code, checks = examined(capsys)
    assert code == 1
    assert checks["run of two frames"] == {
        "name": "run of two frames",
        "state": "failed",
        "value": "RuntimeError: no kernel",
    }
    assert examined(capsys, "--no-run")[0] == 0


def test_a_folder_that_cannot_be_written_is_exit_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor_checks.tempfile, "NamedTemporaryFile", full)
    code, checks = examined(capsys, "--no-run")
    assert code == 1
    assert checks["folder of results"]["value"] == "runs: cannot be written (No space left on device)"


def test_memory_is_compared_with_what_the_model_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "_free_memory", lambda: 4e9)
    states = [
        examined(capsys, "--no-run", "--model", name)[1]["memory"]["state"] for name in ("compact", "sam-hq-vit-h")
    ]
    assert states == ["ok", "note"]
    assert main(["doctor", "--model", "compakt"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_missing_embedded_weights_are_exit_4(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (doctor_checks, "vidseg_pipelines.commands.doctor"):
        place = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{place}.find_local", lambda name: None)
    code, checks = examined(capsys, "--no-run")
    assert code == 4
    assert "compact" in checks["weights here"]["value"]


def test_every_extra_for_users_is_named() -> None:
    extras = tomllib.loads((paths.ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert doctor_checks._EXTRAS.keys() == extras.keys() - {"dev", "docs", "oracle"}
