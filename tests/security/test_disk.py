"""A full disk: one clear line, exit code 1, a journal that is valid, and a run that goes on when there is space."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import file_size_limit
from toys import KeepMasks, frames, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import OutputError
from vidseg.outputs import read_journal
from vidseg.video import VideoWriter
from vidseg_pipelines import run as run_module
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import Loaders, run_video

COUNT, HEIGHT, WIDTH = 24, 96, 128
SAVES = "davis,ytvis,coco,mots,overlay,report"
LOADERS = Loaders(lambda config: tiny_sam(), lambda config: KeepMasks())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that does not compress, and a mask with a ragged outline."""
    folder = tmp_path_factory.mktemp("media")
    writer = VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, crf=18)
    for frame in frames(COUNT, HEIGHT, WIDTH):
        writer.write(frame.rgb, frame.index)
    writer.close()
    labels = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5).astype(np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(folder / "mask.png")
    return folder


def config(media: Path, output: Path, **changes: object) -> RunConfig:
    settings = {"input": str(media / "clip.mp4"), "mask": (str(media / "mask.png"),), "save": SAVES, "refine": "none"}
    return RunConfig(**{**settings, "output": output, "snapshot_every": 4, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run_video(config(media, folder / "out"), loaders=LOADERS)
    return contents(folder / "out")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "overlay.mp4")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_what_is_left(folder: Path, whole: dict[str, bytes]) -> None:
    """What has a final name is complete; the journal is a beginning of the whole one."""
    for name, content in contents(folder).items():
        if name == "masks.jsonl":
            assert whole[name].startswith(content) and (not content or content.endswith(b"\n"))
            assert [masks.frame_index for masks in read_journal(folder / name)] == list(range(content.count(b"\n")))
        elif name != "snapshot.safetensors":
            assert content == whole[name], name
    if (folder / "run.json").exists():
        assert json.loads((folder / "run.json").read_bytes())["status"] in ("running", "failed")


@pytest.mark.parametrize("limit", [3_000, 30_000, 60_000, 150_000])
def test_files_that_cannot_grow(media: Path, whole: dict[str, bytes], tmp_path: Path, limit: int) -> None:
    """Works everywhere: no file may grow beyond a size, so that one output after the other fails."""
    assert max(len(content) for content in whole.values()) > limit
    out = tmp_path / "out"
    with file_size_limit(limit), pytest.raises(OutputError, match=r"cannot write") as caught:
        run_video(config(media, out), loaders=LOADERS)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    check_what_is_left(out, whole)
    run_video(config(media, out, resume=True), loaders=LOADERS)
    assert contents(out) == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("free", [8_192, 65_536, 131_072, 262_144])
def test_a_full_disk(
    media: Path,
    whole: dict[str, bytes],
    small_disk: Path,
    free: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = run_video
    monkeypatch.setattr(run_module, "run_video", lambda config, **how: real(config, **{**how, "loaders": LOADERS}))
    ballast, out = small_disk / "ballast", small_disk / "out"
    ballast.write_bytes(bytes((5 << 20) - free))
    args = ["run", str(media / "clip.mp4"), "--mask", str(media / "mask.png"), "--save", SAVES, "--refine", "none"]
    args += ["--snapshot-every", "4", "--output", str(out)]
    assert main(args) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("vidseg: ")] == [told[-1]]
    assert "the disk is full" in told[-1] and str(out) in told[-1]
    check_what_is_left(out, whole)
    assert main([*args, "--resume"]) == 1  # still full
    check_what_is_left(out, whole)
    ballast.unlink()
    capsys.readouterr()
    assert main([*args, "--resume"]) == 0, capsys.readouterr().err
    assert contents(out) == whole
