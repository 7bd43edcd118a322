"""A run that an earlier revision began, and that was killed, goes on, or is refused in one line that says why.

``fixtures/pipelines/killed_run.zip`` was made by revision e970e47: a run of 12 frames killed at frame 9, and the
journal of a whole one.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

import paths
from toys import KeepMasks, tiny_sam
from vidseg import __version__
from vidseg.config import RunConfig
from vidseg.errors import UsageError
from vidseg.outputs.layout import JOURNAL, MANIFEST, SNAPSHOT
from vidseg_pipelines import run_inputs
from vidseg_pipelines.run import Loaders, run_video

MADE_BY = "0.1.0"
CONFIG = RunConfig(
    input="clip.mp4",
    output=Path("killed"),
    box=("2@0:5,5,30,25", "5@3:20,20,60,40"),
    frames="0:12",
    save="davis,ytvis",
    refine="none",
    snapshot_every=4,
    resume=True,
)
LOADERS = Loaders(lambda config: tiny_sam(), lambda config: KeepMasks())


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the killed run, beside its video."""
    with zipfile.ZipFile(paths.FIXTURES / "pipelines" / "killed_run.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_inputs, "weights_identity", lambda name: {"name": name, "sha256": "digest"})
    return tmp_path / "killed"


def set_version(killed: Path, version: str) -> None:
    manifest = json.loads((killed / MANIFEST).read_bytes())
    (killed / MANIFEST).write_text(json.dumps({**manifest, "version": version}))


@pytest.mark.skipif(__version__ != MADE_BY, reason="snapshots are of one version")
def test_a_run_that_an_earlier_revision_began_goes_on_to_the_same_bytes(killed: Path) -> None:
    summary = run_video(CONFIG, loaders=LOADERS)
    assert (summary.status, summary.frames, summary.objects) == ("done", 12, (2, 5))
    measured = re.sub(rb',"signals":\{[^}]*\}', b"", (killed / JOURNAL).read_bytes())  # an earlier revision did not
    assert measured == (killed.parent / "whole.jsonl").read_bytes()


def test_a_run_of_another_version_is_refused_and_begins_anew_without_its_snapshot(killed: Path) -> None:
    set_version(killed, "0.0.9")
    with pytest.raises(UsageError) as caught:
        run_video(CONFIG, loaders=LOADERS)
    path = Path("killed") / SNAPSHOT
    why = f"it was made by vidseg 0.0.9, this is {__version__}; delete it to restart from the first frame"
    assert str(caught.value) == f"--resume: {path}: {why}"
    (killed / SNAPSHOT).unlink()
    assert run_video(CONFIG, loaders=LOADERS).frames == 12


def test_a_setting_that_the_earlier_run_did_not_know_had_its_default(killed: Path) -> None:
    manifest = json.loads((killed / MANIFEST).read_bytes())
    del manifest["config"]["zoom"]
    (killed / MANIFEST).write_text(json.dumps(manifest))
    (killed / SNAPSHOT).unlink()
    with pytest.raises(UsageError, match=r"made differently \(config\.zoom: 'auto' -> 'never'\)"):
        run_video(RunConfig(**{**vars(CONFIG), "zoom": "never"}), loaders=LOADERS)
    assert run_video(CONFIG, loaders=LOADERS).frames == 12
