from __future__ import annotations

import re

import pytest
import tyro

from vidseg_pipelines.cli import COMMANDS, find_command, main
from vidseg_pipelines.commands.help import OTHER, help_text
from vidseg_pipelines.commands.options import options_of


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_options_of_a_run_are_in_groups(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n{OTHER}:" not in text
    assert (
        text.index("\nprompts:")
        < text.index("  --box TEXT\n")
        < text.index("\noutput:")
        < text.index("  --save TEXT\n")
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_noise_of_the_parser_and_fits_a_terminal(name: str, narrow: None) -> None:
    text = help_text(name, find_command(name))
    assert not re.search(r"\{None\}|default: (None|''|False)|STR\b|repeatable\)", text)
    options = text.partition("\n\noptions:")[2]
    assert "  --help\n" in options
    assert max((len(line) for line in options.splitlines()), default=0) <= 80


@pytest.mark.parametrize("name", ["run", "image", "batch", "weights convert", "train hq", "reproduce"])
def test_help_names_the_flags_that_the_parser_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(find_command(name), args=["--help"], description="", config=(tyro.conf.FlagCreatePairsOff,))
    taken = set(re.findall(r"(?m)^\W{1,5}(?:-h, )?(--[a-z][a-z-]*)", capsys.readouterr().out))
    assert {option.flag for option in options_of(find_command(name)) if option.flag} == taken - {"--help"}


def test_an_option_says_whether_it_is_required_and_what_it_is_otherwise(narrow: None) -> None:
    text = help_text("image", find_command("image"))
    assert text.startswith("usage: vidseg image IMAGE... --output PATH [OPTIONS]\n")
    assert "  --output PATH\n      Folder to write to. (required)\n" in text
    assert "  --zoom auto|always|never\n" in text
    assert "clicks along each side of the image. (default: 32)" in text
    assert "  --auto\n" in text
