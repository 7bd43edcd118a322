from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from vidseg_pipelines.cli import main
from vidseg_pipelines.commands.options import options_of
from vidseg_pipelines.commands.table import COMMANDS, find_command

BASH = shutil.which("bash")
FISH = shutil.which("fish")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "vidseg.bash"
    path.write_text(capsys.readouterr().out)
    return path


CASES = [
    (["do"], ["doctor"]),
    (["weights", "ve"], ["verify"]),
    (["batch", "st"], ["status"]),
    (["run", "video.mp4", "--ove"], ["--overlay-style", "--overwrite"]),
    (["run", "video.mp4", "--refine", ""], ["auto", "box", "none"]),
    (["run", "video.mp4", "--tracker", "cu"], ["cutie"]),
    (["image", "a.jpg", "--model", "sam-hq-vit-t"], ["sam-hq-vit-tiny"]),
    (["eval", "davis", "--task", "un"], ["unsupervised"]),
    (["weights", "fetch", "cutie-b"], ["cutie-base-mega"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["train", "hq", "--start", "sam-hq-vit-t"], ["sam-hq-vit-tiny"]),
    (["run", "vid"], []),  # a file: the shell's own completion
]


@pytest.mark.parametrize(("typed", "offered"), CASES)
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


@pytest.fixture(scope="module")
def fish_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fish") / "vidseg.fish"
    with path.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["completion", "fish"]) == 0
    return path


def test_fish_gets_every_command_and_every_option_with_what_it_does(fish_script: Path) -> None:
    quotes = fish_script.read_text().replace("\\'", "\u2019")  # fish escapes them, shlex cannot read that
    lines = [shlex.split(line) for line in quotes.splitlines() if line.startswith("complete ")]
    offered = {(line[4], line[line.index("-l") + 1]) for line in lines if "-l" in line}
    for name in COMMANDS:
        at = {"batch": "__vidseg_at batch; and not __vidseg_at batch status"}.get(name, f"__vidseg_at {name}")
        flags = [option.flag[2:] for option in options_of(find_command(name)) if option.flag]
        assert {(at, flag) for flag in [*flags, "help"]} <= offered
    for line in lines:
        assert line[:4] == ["complete", "-c", "vidseg", "-n"]
        assert "-d" not in line or len(line[line.index("-d") + 1]) <= 60


@pytest.mark.extras
@pytest.mark.skipif(FISH is None, reason="fish is not installed")
@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_fish_completes_the_same_words(fish_script: Path, tmp_path: Path, typed: list[str], offered: list[str]) -> None:
    assert FISH is not None
    (tmp_path / "video.mp4").touch()
    asked = f"source {fish_script}; complete -C '{' '.join(['vidseg', *typed])}'"
    told = subprocess.run([FISH, "--private", "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path)
    words = [line.partition("\t")[0] for line in told.stdout.splitlines()]
    assert words == (sorted(offered) or ["video.mp4"])
    assert told.stderr == ""
