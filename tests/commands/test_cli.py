from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vidseg import __version__
from vidseg_pipelines.cli import COMMANDS, main


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"vidseg {name} " in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"vidseg {__version__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"vidseg {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rnu"], "did you mean 'run'"),
        (["eval", "davs"], "did you mean 'eval davis'"),
        (["run"], "no video given"),
        (["run", "x.mp4", "--save", "davs"], "did you mean 'davis'"),
        (["run", "x.mp4", "--tracker", "xmen"], "did you mean 'xmem'"),
        (["run", "x.mp4", "--trakcer", "xmem"], "unknown option '--trakcer' (did you mean '--tracker'?); see"),
        (["run", "x.mp4", "--trakcer=xmem"], "unknown option '--trakcer' (did you mean '--tracker'?)"),
        (["run", "x.mp4", "-o", "out"], "unknown option '-o'"),
        (["run", "x.mp4", "y.mp4"], "unexpected argument y.mp4; see vidseg run --help"),
        (["run", "x.mp4", "--max-objects", "many"], "--max-objects 'many': a whole number expected"),
        (["run", "x.mp4", "--max-objects"], "--max-objects: a value is missing"),
        (["run", "x.mp4", "--refine", "best"], "--refine 'best': allowed are 'auto', 'box', 'none'"),
        (["run", "-", "--max-objects", "many"], "vidseg: --max-objects 'many': a whole number expected"),
        (["run", "x.mp4", "--max-objects", "z---- " + 9 * "long "], "'z---- " + 9 * "long " + "'"),
        (["export"], "missing: RUN_DIR, --to"),
        (["image", "x.jpg", "--foo"], "unknown option '--foo'"),
        (["image", "x.jpg"], "missing: --output PATH; see vidseg image --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


IMPORT_EVERY_ENTRY = """
import importlib.abc, os, sys

class Torch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name == "torch":
            raise ImportError([os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")])

sys.meta_path.insert(0, Torch())
before = dict(os.environ)
for entry in (
    "import vidseg_pipelines.cli, torch",
    "from vidseg import segment_frames",
    "import vidseg_pipelines.batch.worker",  # what Ray and SLURM unpickle
    "import vidseg_pipelines.batch.executors.local",
    "import vidseg_trackers.xmem.tracker",
):
    os.environ.clear()
    os.environ.update(before)
    for name in [name for name in sys.modules if name.startswith("vidseg")]:
        del sys.modules[name]
    try:
        exec(entry)
    except ImportError as error:
        print(entry, error)
"""


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ({}, ["passive", "3000"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active", None]),
        ({"GOMP_SPINCOUNT": "9"}, [None, "9"]),
    ],
)
def test_threads_sleep_while_they_wait_whatever_is_imported_first(own: dict[str, str], seen: list[str | None]) -> None:
    """OpenMP reads its wait policy when torch is loaded. What the user has set stays."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    command = [sys.executable, "-c", IMPORT_EVERY_ENTRY]
    result = subprocess.run(command, env=env | own, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert all(line.endswith(str(seen)) for line in lines), lines


@pytest.mark.parametrize(
    "argv", [["--help"], ["weights"], ["--version"], ["run", "--help"], ["completion", "bash"]], ids=" ".join
)
def test_a_reader_that_leaves_early_is_no_error(argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as of `head` that has seen enough
    told = subprocess.run([sys.executable, "-m", "vidseg", *argv], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (told.returncode, told.stderr) == (0, b"")
