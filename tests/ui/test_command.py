"""``vidseg ui``: which networks stand behind the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vidseg_pipelines.build import ModelChoice
from vidseg_pipelines.cli import main


def test_the_page_takes_the_models_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}

    def engine(load: Callable[[], object]) -> str:
        got["models"] = load.__self__  # type: ignore[attr-defined]
        return "engine"

    def serve(path: object, output: object, engine: object, config: object, **rest: object) -> None:
        got.update(engine=engine, config=config)

    monkeypatch.setattr("vidseg_pipelines.ui.engine.PageEngine", engine)
    monkeypatch.setattr("vidseg_pipelines.ui.serve.serve", serve)
    monkeypatch.setattr("vidseg_pipelines.build.check_compiler", lambda device: None)
    words = ["--tracker", "cutie", "--device", "cpu", "--dtype", "bfloat16", "--compile", "--offline", "--no-browser"]
    assert main(["ui", *words]) == 0
    models, config = got["models"], got["config"]
    assert isinstance(models, ModelChoice) and got["engine"] == "engine"
    for chosen in (models, config):  # what is loaded, and what the records of the page say
        assert (chosen.tracker, chosen.model, chosen.device) == ("cutie", "compact", "cpu")
        assert (chosen.dtype, chosen.compile, chosen.offline) == ("bfloat16", True, True)
