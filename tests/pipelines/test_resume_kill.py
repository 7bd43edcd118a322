"""SIGKILL at many moments, also inside a line or a file: final names never hold half of a file, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import paths
from cutie_rule import toy_cutie
from toys import frames
from vidseg.outputs import read_journal
from vidseg.video import VideoWriter, open_source

COUNT = 22
FPS = 5  # frames per fragment of the overlay
SEED = 11


class Runs:
    """Talks to the process of ``kill_switch.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.video, self.mask = folder / "clip.mp4", folder / "first.png"
        writer = VideoWriter(self.video, 64, 48, fps=Fraction(FPS), time_base=Fraction(1, 500))
        for frame in frames(COUNT, 48, 64):
            writer.write(frame.rgb, frame.pts)
        writer.close()
        labels = np.zeros((48, 64), np.uint8)
        labels[5:25, 6:30], labels[28:44, 30:60] = 1, 2
        image = Image.fromarray(labels, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(self.mask)
        self._child = subprocess.Popen(
            [sys.executable, str(paths.HELPERS / "kill_switch.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, name: str, **how: Any) -> dict[str, Any]:
        """One run into the folder ``name``, resumed if there is something to resume."""
        command = {"video": str(self.video), "mask": str(self.mask), "output": str(self.folder / name), **how}
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer

    def close(self) -> None:
        self._child.communicate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(tmp_path_factory.mktemp("kill"))
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def whole(runs: Runs) -> dict[str, Any]:
    """The uninterrupted run: its files, how many events of each kind it has, and how long it takes."""
    answer = runs("whole")
    assert answer["code"] == 0
    return {**answer, "files": contents(runs.folder / "whole")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which holds times, and the overlay, which promises no bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "overlay.mp4")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_final_names(folder: Path, *, fresh: bool = True) -> None:
    """Every file without ``.part`` can be read; of the overlay only the last fragment may be missing.

    A fragment has at most ``FPS`` frames; it begins anywhere, because the encoder adds key frames at scene cuts.
    """
    written = 0
    if (folder / "masks.jsonl").exists():
        indices = [masks.frame_index for masks in read_journal(folder / "masks.jsonl")]
        assert indices == list(range(len(indices)))
        written = len(indices)
    for path in folder.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in (folder / "davis").glob("*.png"):
        Image.open(path).load()
    for name, end in (("mots.txt", "\n"), ("report.html", "</html>\n")):
        assert not (folder / name).exists() or (folder / name).read_text().endswith(end)
    if (folder / "snapshot.safetensors").exists():
        with safe_open(folder / "snapshot.safetensors", "pt") as file:
            assert int(file.metadata()["next_frame"]) <= written
    if fresh and written > FPS:
        assert len(list(open_source(folder / "overlay.mp4"))) >= written - FPS


def finish(runs: Runs, name: str, whole: dict[str, Any]) -> None:
    answer = runs(name)
    assert answer["code"] == 0, answer
    assert contents(runs.folder / name) == whole["files"]
    assert len(list(open_source(runs.folder / name / "overlay.mp4"))) == COUNT


def test_kills_at_random_moments(runs: Runs, whole: dict[str, Any]) -> None:
    rng = random.Random(SEED)
    moments = [(label, n) for label, count in sorted(whole["events"].items()) for n in range(1, count + 1)]
    for number, moment in enumerate(rng.sample(moments, 12)):
        name = f"random-{number}"
        assert runs(name, kill=moment)["code"] == -9, moment
        check_final_names(runs.folder / name)
        finish(runs, name, whole)


@pytest.mark.parametrize(
    "moment",
    [
        ("write masks.jsonl", 14),
        ("write snapshot.safetensors", 1),
        ("write snapshot.safetensors", 3),
        ("before rename snapshot.safetensors", 1),
        ("write run.json", 1),
        ("after rename overlay.mp4", 1),
        ("write ytvis.json", 1),
        ("unlink snapshot.safetensors", 1),
    ],
)
def test_kills_inside_files(runs: Runs, whole: dict[str, Any], moment: tuple[str, int]) -> None:
    name = "inside-" + "-".join(map(str, moment)).replace(" ", "-")
    assert runs(name, kill=moment)["code"] == -9
    check_final_names(runs.folder / name)
    finish(runs, name, whole)


def test_kills_from_outside_one_after_the_other(runs: Runs, whole: dict[str, Any]) -> None:
    rng = random.Random(SEED)
    for number in range(4):
        answer = runs("outside", after=rng.uniform(0.1, 0.9) * whole["seconds"])
        check_final_names(runs.folder / "outside", fresh=number == 0)
        if answer["code"] == 0:
            break
    finish(runs, "outside", whole)


@pytest.mark.parametrize("moment", [("truncated masks.jsonl", 1), ("frame", 2), ("write masks.jsonl", 3)])
def test_a_killed_resume_is_resumed(runs: Runs, whole: dict[str, Any], moment: tuple[str, int]) -> None:
    name = "twice-" + moment[0].replace(" ", "-")
    assert runs(name, kill=("write masks.jsonl", 11))["code"] == -9
    assert runs(name, kill=moment)["code"] == -9
    check_final_names(runs.folder / name, fresh=False)
    finish(runs, name, whole)


def test_a_killed_overwrite_does_not_pass_for_a_finished_run(runs: Runs, whole: dict[str, Any]) -> None:
    assert runs("replaced")["code"] == 0
    assert runs("replaced", overwrite=True, kill=("unlink ytvis.json", 1))["code"] == -9
    assert runs("replaced")["error"].endswith("holds no run (no run.json); use --overwrite")
    assert runs("replaced", overwrite=True)["code"] == 0
    assert contents(runs.folder / "replaced") == whole["files"]


@pytest.fixture(scope="module")
def corrected(runs: Runs) -> dict[str, bytes]:
    """The run of all prompts at once."""
    assert runs("corrected", said={"point": ["1@14:20,15/-50,35"]})["code"] == 0
    return contents(runs.folder / "corrected")


@pytest.mark.parametrize(
    "moment",
    [
        ("before rename run.json", 1),
        ("after rename run.json", 1),
        ("truncated masks.jsonl", 1),
        ("write 00000016.safetensors", 1),
    ],
)
def test_a_killed_correction_goes_on(
    runs: Runs, whole: dict[str, Any], corrected: dict[str, bytes], moment: tuple[str, int]
) -> None:
    name = "corrected-" + "-".join(map(str, moment)).replace(" ", "-")
    folder = runs.folder / name
    assert runs(name, keep_states=8)["code"] == 0
    said = {"continue_": True, "point": ["1@14:20,15/-50,35"]}
    assert runs(name, going_on=said, kill=moment)["code"] == -9
    check_final_names(folder, fresh=False)
    lines = whole["files"]["masks.jsonl"].splitlines(True)
    assert (folder / "masks.jsonl").read_bytes().startswith(b"".join(lines[:14]))  # nothing before the prompt is lost
    said_already = json.loads((folder / "run.json").read_bytes())["config"]["point"]
    answer = runs(name, going_on={"resume": True} if said_already else said)
    assert answer["code"] == 0 and answer["events"]["frame"] <= COUNT - 8 + 1  # from a state, not from the start
    found = {name: data for name, data in contents(folder).items() if not name.startswith("states")}
    assert found.keys() == corrected.keys()
    assert all(data == corrected[name] for name, data in found.items() if name != "report.html")  # it lists settings
    assert sorted(path.stem for path in (folder / "states").iterdir()) == ["00000008", "00000016"]


def test_a_killed_run_of_cutie_goes_on_with_the_same_bytes(runs: Runs) -> None:
    weights = runs.folder / "cutie.safetensors"
    save_file(toy_cutie().state_dict(), weights)
    memory = {"max_mem_frames": 4, "min_mem_frames": 2, "num_prototypes": 4, "max_num_tokens": 24, "buffer_tokens": 4}
    options = {"weights": str(weights), "size": -1, "mem_every": 2, "absence": False, "long_term": memory}
    settings = {"tracker": "cutie", "tracker_options": options}
    assert runs("cutie-whole", **settings)["code"] == 0
    journal = runs.folder / "cutie-whole" / "masks.jsonl"
    assert {i for masks in list(read_journal(journal))[10:] for i in masks.ids} == {1, 2}
    assert runs("cutie", kill=("write masks.jsonl", 15), **settings)["code"] == -9
    assert (runs.folder / "cutie" / "snapshot.safetensors").exists()
    assert runs("cutie", **settings)["code"] == 0
    assert contents(runs.folder / "cutie") == contents(runs.folder / "cutie-whole")
