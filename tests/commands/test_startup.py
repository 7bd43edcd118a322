"""Help, usage errors and commands that only look something up start at once: nothing heavy is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vidseg_pipelines.cli import COMMANDS

HEAVY = ("torch", "av", "cv2", "scipy", "pycocotools", "safetensors.torch")

TRY = """
import contextlib, io, json, sys
from vidseg_pipelines.cli import main

codes, loaded = [], {}
for argv in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            codes.append(main(argv))
        except SystemExit as stop:
            codes.append(stop.code)
    for name in json.loads(sys.argv[2]):
        if name in sys.modules:
            loaded.setdefault(name, " ".join(argv))
print(json.dumps([codes, loaded]))
"""


def tried(calls: list[list[str]], heavy: tuple[str, ...]) -> tuple[list[int], dict[str, str]]:
    """Exit codes of calls in one new process, and which heavy modules were loaded by which call."""
    command = [sys.executable, "-c", TRY, json.dumps(calls), json.dumps(heavy)]
    codes, loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return codes, loaded


def test_help_of_every_command_loads_nothing_heavy() -> None:
    calls = [[], ["--version"], *([*name.split(), "--help"] for name in COMMANDS)]
    codes, loaded = tried(calls, HEAVY)
    assert codes == [0] * len(calls)
    assert loaded == {}


def test_a_flag_that_no_command_has_loads_nothing_heavy() -> None:
    calls = [[*name.split(), "--no-such-flag"] for name in COMMANDS]
    codes, loaded = tried(calls, HEAVY)
    assert codes == [2] * len(calls)
    assert loaded == {}


WRONG = """
run
run x.mp4 --save davs
run x.mp4 --tracker xmen
run x.mp4 --overlay-style fill=2
run x.mp4 --detect-with nobody
image --output x
batch videos
batch videos --output x --detect-with nobody
export x --to davs
reproduce
reproduce coco --noise 2
weights fetch nobody
"""


def test_usage_errors_are_found_before_anything_heavy_is_loaded() -> None:
    calls = [line.split() for line in WRONG.strip().splitlines()]
    codes, loaded = tried(calls, HEAVY)
    assert codes == [2] * len(calls)
    assert loaded == {}


def test_looking_something_up_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "batch" / "records").mkdir(parents=True)
    codes, loaded = tried([["weights", "list"], ["batch", "status", str(tmp_path / "nothing")]], HEAVY)
    assert codes == [0, 3]
    assert loaded == {}
    codes, loaded = tried([["export", str(tmp_path), "--to", "coco"]], ("torch",))
    assert codes == [3]
    assert loaded == {}


def test_models_are_loaded_without_the_compiler() -> None:
    """Random initial weights on the meta device would import it, which takes longer than reading the models."""
    load = "from vidseg.loading import load_sam; from vidseg.registry import build_tracker"
    asked = "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    code = f"import sys; {load}; load_sam(); build_tracker('xmem'); {asked}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
