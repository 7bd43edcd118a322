"""Every command in README and docs exists as it is written; those that need no network, data set or camera are run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from fractions import Fraction
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import paths
from golden_masks import scene, write_labels
from toys import KeepMasks, search_quickly, tiny_sam
from vidseg.video import VideoWriter
from vidseg_pipelines import object_finder
from vidseg_pipelines import run as run_module
from vidseg_pipelines.cli import COMMANDS, find_command, main
from vidseg_pipelines.run import Loaders, run_video

PAGES = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
WIDTH, HEIGHT, COUNT = 656, 368, 27  # what the commands need: boxes up to 400,360, a click on frame 25

NOT_RUN = {
    "--text": "the weights of a text detector are downloaded",
    "--tracker cutie": "official weights are downloaded",
    "--tracker sam2": "official weights are downloaded",
    "--tracker mask2former": "official weights are given by the user",
    "--model sam2.1": "official weights are downloaded",
    "rtsp://": "a camera",
    "s3://": "object storage",
    "weights fetch": "the network",
    "reproduce": "data sets and official weights",
    "train ": "data sets, and hours",
    "vidseg ui": "runs until it is stopped",
    "vidseg serve": "runs until it is stopped",
    "batch status": "a batch that was started",
    "export runs/": "a run with its video",
    "suggest runs/": "a run",
    "--continue": "a run to go on with",
}
"""Parts of lines -> what running them would need; their flags are parsed all the same."""


def code_lines(page: Path) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, without prompts and comments."""
    fence = None
    for line in page.read_text("utf-8").splitlines():
        if line.strip().startswith("```"):
            fence = None if fence is not None else line.strip()[3:]
        elif fence in ("", "bash") or (fence is None and line.startswith("    ")):
            yield re.sub(r"\s+#.*", "", line).strip()
        elif fence == "console" and line.startswith("$ "):
            yield line[2:]


def lines_that_begin_with(*words: str) -> list[str]:
    return [line for page in PAGES for line in code_lines(page) if line.startswith(words)]


VIDSEG = [line for line in lines_that_begin_with("vidseg ") if "[" not in line and not line.startswith("vidseg/")]
RUN = [line for line in VIDSEG if not any(part in line for part in NOT_RUN)]


def command_of(line: str) -> tuple[str, list[str]]:
    words = shlex.split(line)[1:]
    pair = " ".join(words[:2])
    return (pair, words[2:]) if pair in COMMANDS else (words[0], words[1:])


@cache
def flags(name: str) -> set[str]:
    shown = StringIO()
    with redirect_stdout(shown):
        assert main([*name.split(), "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]+", shown.getvalue()))


def test_there_are_commands_of_every_kind() -> None:
    assert len(RUN) >= 7 and len(VIDSEG) >= 25
    assert all(any(part in line for line in VIDSEG) for part in NOT_RUN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_flags_in_the_text_exist(page: Path) -> None:
    spans = re.findall(r"`vidseg ([a-z][a-z0-9 -]*)([^`]*)`", page.read_text("utf-8").replace("\n", " "))
    for words, rest in spans:
        names = [n for n in COMMANDS if f"{words.strip()} ".startswith(f"{n} ")]
        if names:
            given = set(re.findall(r"--[a-z][a-z-]+", words + rest))
            assert given <= flags(max(names, key=len)), words
        else:
            assert any(n.split()[0] == words.split()[0] for n in COMMANDS), words


@pytest.mark.parametrize("line", sorted(set(VIDSEG)))
def test_commands_in_blocks_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.ROOT)
    name, _ = command_of(line)
    monkeypatch.setattr(find_command(name), "run", lambda self: 0)
    monkeypatch.setattr(find_command(name), "defaults_for", lambda given: None, raising=False)
    assert main(shlex.split(line)[1:]) == 0


@pytest.fixture
def quick_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches look at whole frames only, with few clicks."""
    monkeypatch.setattr(object_finder, "discover_objects", search_quickly)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands name."""
    folder = tmp_path_factory.mktemp("inputs")
    pictures = [cv2.resize(scene(time // 8), (WIDTH, HEIGHT)) for time in range(COUNT)]
    write_video(folder / "video.mp4", pictures)
    (folder / "frames").mkdir()
    for number, picture in enumerate(pictures[:3]):
        cv2.imwrite(str(folder / "frames" / f"{number:05}.png"), picture[..., ::-1])
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[100:200, 100:200] = 1
    write_labels(folder / "first.png", labels)
    boxes = ", ".join(f'{{"image_id": {n}, "category_id": 1, "bbox": [100, 80, 300, 280], "score": 1}}' for n in (1, 2))
    (folder / "detections.json").write_text(f"[{boxes}]")
    write_labels_of_tools(folder)
    return folder


def write_labels_of_tools(folder: Path) -> None:
    """One object on frame 0, as other tools save it."""
    corners, size = [100, 80, 400, 80, 400, 360], {"width": WIDTH, "height": HEIGHT}
    names = {"categories": [{"id": 1, "name": "dog"}], "images": [{"id": 1, "file_name": "video_00000.jpg", **size}]}
    row = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [corners]}
    (folder / "coco.json").write_text(json.dumps(names | {"annotations": [row]}))
    points = "100,80;400,80;400,360"
    (folder / "annotations.xml").write_text(
        f'<annotations><track label="dog"><polygon frame="0" points="{points}"/></track></annotations>'
    )
    (folder / "labels").mkdir()
    shape = {"label": "dog", "points": np.reshape(corners, (3, 2)).tolist()}
    (folder / "labels" / "00000.json").write_text(json.dumps({"shapes": [shape]}))
    (folder / "dataset" / "annotations").mkdir(parents=True)
    polygon = {"type": "polygon", "points": corners}
    (folder / "dataset" / "annotations" / "train.json").write_text(
        json.dumps({"categories": {}, "items": [{"id": "video_00000", "annotations": [polygon]}]})
    )


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    height, width = pictures[0].shape[:2]
    writer = VideoWriter(path, width, height, fps=Fraction(25), time_base=Fraction(1, 25))
    for number, picture in enumerate(pictures):
        writer.write(picture, number)
    writer.close()


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("line", sorted(set(RUN)))
def test_commands_run(line: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a toy network, and a tracker that leaves masks where they are."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)

    def with_toys(config: Any, **how: Any) -> Any:
        toys = Loaders(sam=lambda config: tiny_sam())
        if config.tracker == "xmem":
            toys = Loaders(sam=toys.sam, tracker=lambda config: KeepMasks())
        return run_video(config, **{**how, "loaders": toys})

    monkeypatch.setattr(run_module, "run_video", with_toys)
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("page", [PAGES[0], paths.ROOT / "docs" / "index.md"], ids=lambda page: page.stem)
def test_the_python_for_beginners_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the embedded weights."""
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "video.mp4", [cv2.resize(scene(time), (WIDTH, HEIGHT)) for time in range(2)])
    image = cv2.resize(scene(0), (WIDTH, HEIGHT))
    names: dict[str, Any] = {"camera_frames": [scene(time) for time in range(2)], "image": image}
    exec(code, names)
    assert re.findall(r"^(\d) ", capsys.readouterr().out, re.M) == ["0", "1"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page is in its navigation, every link and anchor leads somewhere, every name of the API exists."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    commands = (tmp_path / "commands.html").read_text("utf-8")
    assert all(f'id="vidseg-{name.replace(" ", "-")}"' in commands for name in COMMANDS)
    for page in ("index.html", "python.html"):  # works without a network
        assert not re.findall(r'(?:src|href)="https?://(?!squidfunk)', (tmp_path / page).read_text("utf-8"))


def test_checksums_of_the_embedded_weights_are_true() -> None:
    text = (paths.ROOT / "docs" / "supply-chain.md").read_text("utf-8")
    for path in sorted((paths.ROOT / "vidseg" / "weights" / "data").glob("*.safetensors")):
        assert f"| `{path.name}` | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |" in text


def test_scripts_and_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (paths.ROOT / "Makefile").read_text(), re.M)
    made = lines_that_begin_with("make ")
    assert made and {line.split()[1] for line in made} <= set(targets)
    scripts = lines_that_begin_with("python ")
    assert scripts
    for line in scripts:
        text = (paths.ROOT / line.split()[1]).read_text("utf-8")
        unknown = [
            flag for flag in re.findall(r"--([a-z-]+)", line) if flag.replace("-", "_") not in text and flag not in text
        ]
        assert not unknown, line
