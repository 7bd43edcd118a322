"""Trackers of other packages: the example is installed and run; broken ones are named and disturb nobody else."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from importlib.metadata import EntryPoints
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vidseg
from media import write_video
from paths import ROOT
from vidseg import registry
from vidseg.errors import UsageError
from vidseg.outputs import read_journal
from vidseg.registry import build_tracker, installed, package_of
from vidseg.testing import synthetic_frame, synthetic_masks
from vidseg_pipelines.cli import main

EXAMPLE = ROOT / "examples" / "tracker-package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the example."""
    target = tmp_path_factory.mktemp("site")
    words = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(EXAMPLE)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def clip(path: Path) -> Path:
    return write_video(path, [synthetic_frame(index).rgb for index in range(4)])


def test_the_example_is_installed_and_run(site: Path, tmp_path: Path) -> None:
    video, out = clip(tmp_path / "in.mp4"), tmp_path / "out"
    command = [sys.executable, "-m", "vidseg", "run", str(video), "--output", str(out), "--tracker", "histogram"]
    command += ["--refine", "none", "--device", "cpu", "--save", "none", "--tracker-option", "blur=3"]
    Image.fromarray(np.uint8(synthetic_masks(0)[7])).save(tmp_path / "first.png")
    paths = os.pathsep.join([str(site), *sys.path])
    done = subprocess.run(
        [*command, "--mask", str(tmp_path / "first.png")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = read_journal(out / "masks.jsonl")
    (mask,) = last.masks
    truth = synthetic_masks(3)[7]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_the_test_of_the_example_passes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    runpy.run_path(str(EXAMPLE / "test_histogram.py"))["test_the_tracker_keeps_the_contract"]()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, value: str = "") -> None:
    """A package on the path that has one tracker, called as the package."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    meta = folder / f"{module}-1.5.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (meta / "entry_points.txt").write_text(f"[vidseg.trackers]\n{name} = {value or module + ':build'}\n")
    monkeypatch.syspath_prepend(str(folder))


NO_IMPORT = "import no_such_module\n"
BUILD = "def build(options, *, device, dtype, offline):\n    {}\n"
BROKEN = {
    "bad-import": (NO_IMPORT, "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    "bad-syntax": ("def build(:\n", "cannot be imported: SyntaxError: "),
    "bad-name": ("", "cannot be imported: AttributeError: module 'bad_name' has no attribute 'build'"),
    "bad-exit": ("raise SystemExit(3)\n", "cannot be imported: SystemExit: 3"),
    "bad-build": (BUILD.format("raise KeyError('size')"), "cannot be built: KeyError: 'size'"),
    "bad-arguments": ("def build(options): ...\n", "cannot be built: TypeError: build() got an unexpected keyword"),
    "bad-kind": (
        BUILD.format("return 5"),
        "is no tracker: int lacks lookahead, wants_masks, finds_objects, start, step",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, reason = BROKEN[name]
    monkeypatch.setattr("vidseg_pipelines.build.load_sam", lambda *words, **more: None)
    install(tmp_path, monkeypatch, name, code)
    module = name.replace("-", "_")
    out = tmp_path / "out"
    words = ["run", str(clip(tmp_path / "in.mp4")), "--output", str(out), "--tracker", name, "--device", "cpu"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"tracker '{name}' of the package {name} 1.5 (entry point {module}:build) {reason}" in line
    assert not out.exists()


def test_an_error_that_a_plugin_means_for_the_user_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "from vidseg.errors import WeightsError\n    raise WeightsError('no file of weights')"
    install(tmp_path, monkeypatch, "needs-weights", BUILD.format(body))
    with pytest.raises(vidseg.WeightsError, match="no file of weights"):
        build_tracker("needs-weights")


def test_an_error_inside_our_own_trackers_is_not_blamed_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg_trackers.boxes.tracker.build", lambda *words, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_tracker("boxes")


def test_two_packages_with_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "two"):
        install(tmp_path, monkeypatch, package, BUILD.format("return 5"))
        (tmp_path / f"{package}-1.5.dist-info" / "entry_points.txt").write_text("[vidseg.trackers]\nsame = one:build\n")
    with pytest.raises(UsageError, match=r"^tracker 'same' is in several packages, one 1\.5, two 1\.5: uninstall"):
        build_tracker("same")


def test_a_package_that_is_installed_while_the_program_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "first", BUILD.format("return 5"))
    os.utime(tmp_path, ns=(0, 0))  # however coarse the clock of the file system is
    assert {"first", "boxes"} <= set(installed("tracker"))
    install(tmp_path, monkeypatch, "second", BUILD.format("return 5"))
    sys.path.remove(str(tmp_path))  # once is enough
    assert {"first", "second", "boxes"} <= set(installed("tracker"))


def test_packages_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(**chosen: str) -> EntryPoints:
        raise AssertionError("read again")

    installed("tracker")
    monkeypatch.setattr(registry, "entry_points", again)
    assert "boxes" in installed("tracker") and package_of("tracker", "boxes") == ""


def test_broken_packages_disturb_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, "bad-import", NO_IMPORT)
    install(tmp_path, monkeypatch, "bad-value", "", "no module at all")
    install(tmp_path, monkeypatch, "fine", BUILD.format("return 5"))
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["doctor", "--no-run"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())  # cells of a table
    assert "fine (fine 1.5)" in shown
    assert "bad-import (bad-import 1.5)" in shown
    assert shown.count("broken plug-in") == 2
    assert {"boxes", "xmem", "bad-import"} <= set(installed("tracker"))
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("1,1,8,12,32,32,1,-1,-1,-1\n")
    assert build_tracker("boxes", {"file": str(boxes)}).finds_objects
