"""Nothing goes out unasked: sockets, look-ups and connections fail in the process that runs the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limited_child import commands_in_child
from media import barcode_frame, write_video
from vidseg.outputs import read_journal

COMMANDS = ("offline", "default", "model", "tracker", "image", "stream", "list", "doctor", "fetch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, dict[str, Any]]:
    """Every command once, in one process that has no network and no fetched weights."""
    clip = str(write_video(folder / "clip.mp4", [barcode_frame(n) for n in range(2)]))
    job = ["run", clip, "--box", "10,5,60,50", "--save", "ytvis"]
    commands = [
        [*job, "--offline", "--output", str(folder / "offline")],
        [*job, "--output", str(folder / "default")],
        [*job, "--offline", "--model", "sam-hq-vit-b", "--output", str(folder / "model")],
        [*job, "--offline", "--tracker-option", "weights=xmem", "--output", str(folder / "tracker")],
        ["image", clip, "--offline", "--model", "sam-vit-b", "--output", str(folder / "image")],
        ["run", "http://127.0.0.1:9/clip.mp4", "--offline", "--output", str(folder / "stream")],
        ["weights", "list"],
        ["doctor"],
        ["weights", "fetch", "sam-hq-vit-tiny"],
    ]
    told = commands_in_child(commands, "no-network", VIDSEG_WEIGHTS=str(folder / "weights"))
    return dict(zip(COMMANDS, told, strict=True))


@pytest.mark.parametrize("name", ["offline", "default"])
def test_the_main_job_needs_no_network(answers: dict[str, dict[str, Any]], folder: Path, name: str) -> None:
    assert (answers[name]["code"], answers[name]["network"]) == (0, []), answers[name]
    assert [masks.frame_index for masks in read_journal(folder / name / "masks.jsonl")] == [0, 1]


@pytest.mark.parametrize("name", ["model", "tracker", "image"])
def test_offline_missing_weights_are_one_clear_line(answers: dict[str, dict[str, Any]], name: str) -> None:
    assert (answers[name]["code"], answers[name]["network"]) == (4, []), answers[name]
    assert "not on this machine and --offline forbids fetching them" in answers[name]["err"]
    assert answers[name]["err"].count("\n") == 1


def test_offline_remote_inputs_are_refused(answers: dict[str, dict[str, Any]]) -> None:
    assert (answers["stream"]["code"], answers["stream"]["network"]) == (3, []), answers["stream"]
    assert "--offline" in answers["stream"]["err"]


@pytest.mark.parametrize("name", ["list", "doctor"])
def test_looking_is_not_asking(answers: dict[str, dict[str, Any]], name: str) -> None:
    assert (answers[name]["code"], answers[name]["network"]) == (0, [])


def test_a_fetch_asks_and_fails_with_one_line(answers: dict[str, dict[str, Any]]) -> None:
    """Also the proof that attempts are seen."""
    assert answers["fetch"]["code"] == 4
    assert answers["fetch"]["network"]
    assert "no network here" in answers["fetch"]["err"] and answers["fetch"]["err"].count("\n") == 1
