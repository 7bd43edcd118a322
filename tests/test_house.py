"""What the house rules promise: the arrows between packages, the names in the wheel, help that is true."""

from __future__ import annotations

import importlib
import random
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import paths
import vidseg
from vidseg.masks.paste import to_original_size
from vidseg_pipelines.cli import ALIASES, COMMANDS, find_command

ROOT = paths.ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(out.glob("*.whl"))


def test_wheel_has_exactly_our_three_packages_and_the_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"vidseg", "vidseg_trackers", "vidseg_pipelines"}
    assert "vidseg/weights/data/compact.safetensors" in names
    assert "vidseg/weights/data/compact-xmem.safetensors" in names
    assert any(name.startswith("vidseg/configs/") for name in names)


def test_installs_beside_the_trackers_package(wheel: Path, tmp_path: Path) -> None:
    def pip(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    fetched = pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(tmp_path), "trackers")
    if fetched.returncode != 0:
        pytest.skip("the package index cannot be reached")
    other = next(tmp_path.glob("trackers-*.whl"))
    ours = set(zipfile.ZipFile(wheel).namelist())
    theirs = set(zipfile.ZipFile(other).namelist())
    assert any(name.startswith("trackers/") for name in theirs)
    assert not ours & theirs
    site = tmp_path / "site"
    installed = pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel), str(other))
    assert installed.returncode == 0, installed.stderr
    assert {"vidseg", "vidseg_trackers", "vidseg_pipelines", "trackers"} <= {p.name for p in site.iterdir()}


def test_arrows_run_one_way() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_every_name_of_a_module_in_a_text_is_one() -> None:
    for command in COMMANDS:
        assert find_command(command).run
    assert set(ALIASES.values()) <= set(COMMANDS)
    for name in vidseg.__all__:
        assert getattr(vidseg, name) is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = [target for group in project["entry-points"].values() for target in group.values()]
    for target in [*points, *project["scripts"].values()]:
        module, name = target.split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_a_machine_with_a_gpu_gets_all_that_we_depend_on() -> None:
    """What benchmarks/gpu_packages.sh installs where it is missing; it needs torch, numpy and OpenCV, and no PyAV."""
    packages = (ROOT / "benchmarks" / "gpu_packages.sh").read_text()
    listed = {line.split()[1] for line in packages.split("'LIST'\n")[1].split("\nLIST\n")[0].splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[; ]", text)[0] for text in project["dependencies"]}
    assert names - listed == {"torch", "numpy", "av", "opencv-python-headless"}
    script = (ROOT / "benchmarks" / "gpu.sh").read_text()
    steps = subprocess.run([sys.executable, "benchmarks/gpu.py", "--list"], cwd=ROOT, capture_output=True, text=True)
    assert set(re.findall(r"^check \d+ (\S+)$", script, re.M)) == set(steps.stdout.split())
    seconds = re.findall(r"^(?:check|step) (\d+) ", script, re.M)
    assert sum(map(int, seconds)) <= 360


def test_the_tests_that_may_be_skipped_exist() -> None:
    lines = (ROOT / "tests" / "allowed_skips.txt").read_text().splitlines()
    for line in lines:
        if not line.startswith("#"):
            name, _, reason = line.partition(": ")
            file, _, test = name.partition("::")
            assert f"def {test}" in (ROOT / file).read_text() and reason, line


@pytest.mark.parametrize("before", ["first", "second"])
def test_every_test_begins_with_the_same_random_numbers(before: str) -> None:
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
    new = [random.Random(0).random(), float(np.random.RandomState(0).rand())]
    assert drawn == [*new, float(torch.rand((), generator=torch.Generator().manual_seed(0)))]


def test_shapes_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="logits"):
        to_original_size(torch.zeros(3, 4), (2, 2), (2, 2), (4, 4))
