from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vidseg_pipelines.cli import main

BASH = shutil.which("bash")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "vidseg.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["do"], ["doctor"]),
        (["weights", "ve"], ["verify"]),
        (["batch", "st"], ["status"]),
        (["run", "video.mp4", "--ove"], ["--overlay-style", "--overwrite"]),
        (["run", "video.mp4", "--refine", ""], ["auto", "box", "none"]),
        (["run", "video.mp4", "--tracker", "cu"], ["cutie"]),
        (["image", "a.jpg", "--model", "sam-hq-vit-t"], ["sam-hq-vit-tiny"]),
        (["eval", "davis", "--task", "un"], ["unsupervised"]),
        (["weights", "fetch", "cutie-b"], ["cutie-base-mega"]),
        (["completion", ""], ["bash", "zsh"]),
        (["run", "vid"], []),  # a file: the shell's own completion
    ],
)
def test_words_are_completed(script: Path, typed: list[str], offered: list[str]) -> None:
    assert BASH is not None
    words = " ".join(f"'{word}'" for word in ["vidseg", *typed])
    asked = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _vidseg; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    told = subprocess.run([BASH, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.split() == offered
    assert told.stderr == ""


def test_zsh_takes_the_same_script(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == "autoload -U +X bashcompinit && bashcompinit\n" + script.read_text()
