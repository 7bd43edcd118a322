"""What several tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidseg_pipelines.cli import main


@pytest.fixture
def vidseg(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line on the ``video`` of the test; gives what it says on standard error.

    ``vidseg("out", ...)`` writes to a folder of that name; ``clip=None`` names no video, ``code`` is what is expected.
    """

    def call(name: str, *args: str, code: int = 0, clip: str | None = str(video)) -> str:
        given = [] if clip is None else [clip]
        assert main(["run", *given, "--output", str(tmp_path / name), *args]) == code
        return capsys.readouterr().err

    return call
