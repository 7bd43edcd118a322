from __future__ import annotations

import subprocess
import sys

import pytest

from vidseg import __version__
from vidseg.cli import COMMANDS, main


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"vidseg {name} " in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"vidseg {__version__}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"vidseg {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rnu"], "did you mean 'run'"),
        (["eval", "davs"], "did you mean 'eval davis'"),
        (["run"], "which video?"),
        (["run", "x.mp4", "--save", "davs"], "did you mean 'davis'"),
        (["run", "x.mp4", "--tracker", "xmen"], "did you mean 'xmem'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


def test_unknown_flag_is_exit_2() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "x.mp4", "--trakcer", "xmem"])
    assert stop.value.code == 2


def test_help_is_instant() -> None:
    heavy = "any(m in sys.modules for m in ('torch', 'av', 'cv2'))"
    code = f"import sys; from vidseg.cli import main; main([]); sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
