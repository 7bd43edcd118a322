"""`--tracker sam2` in whole runs: by name, one encoder pass for tracker and masks, resumed, in half precision."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch

import paths
from sam2_rule import Case, disc, frame
from toys import EncoderCounter, tiny_sam
from vidseg.config import RunConfig
from vidseg.errors import UsageError, WeightsError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode
from vidseg.registry import build_tracker, weights_used
from vidseg.sam2.adapter import Sam2AsSam
from vidseg.sam2.loading import place_sam2, save_sam2
from vidseg.sam2.model import Sam2
from vidseg.types import Frame, Prompt, VideoInfo
from vidseg.video import VideoWriter
from vidseg_pipelines.api import segment_frames
from vidseg_pipelines.cli import main
from vidseg_pipelines.run import run_video
from vidseg_trackers.sam2.options import Sam2Options
from vidseg_trackers.sam2.tracker import Sam2Tracker

SEED, HEIGHT, WIDTH, COUNT = 3, 96, 144, 12
BOX = Prompt(0, 1, box=(20, 12, 62, 54))
PROJECT = paths.ROOT / "pyproject.toml"


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers are those of pyproject.toml, however old the installation is."""
    tables = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]

    def declared(kind: str) -> EntryPoints:
        group = f"vidseg.{kind}s"
        return EntryPoints(EntryPoint(name, value, group) for name, value in tables[group].items())

    monkeypatch.setattr("vidseg.registry._declared", declared)


@cache
def network(name: str = "video_correction") -> Sam2:
    return Case(name).network()


@cache
def pictures() -> tuple[Frame, ...]:
    return tuple(Frame(t, 100 * t, t / 24, frame(SEED, t, HEIGHT, WIDTH)) for t in range(COUNT))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_sam2(network(), tmp_path / "mini.safetensors")
    return tmp_path / "mini.safetensors"


@pytest.fixture
def config(weights: Path, tmp_path: Path) -> RunConfig:
    writer = VideoWriter(tmp_path / "clip.mp4", WIDTH, HEIGHT, fps=Fraction(24), time_base=Fraction(1, 2400))
    for picture in pictures():
        writer.write(picture.rgb, picture.pts)
    writer.close()
    return RunConfig(
        input=str(tmp_path / "clip.mp4"),
        output=tmp_path / "out",
        tracker="sam2",
        model=str(weights),
        box=("1@20,12,62,54",),
        device="cpu",
        batch=4,
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of pictures that any SAM 2 encodes."""
    passes = [0]
    original = Sam2.encode

    def encode(self: Sam2, x: torch.Tensor, size: tuple[int, int]) -> object:
        passes[0] += len(x)
        return original(self, x, size)

    monkeypatch.setattr(Sam2, "encode", encode)
    yield passes


def masks_of(results: list[FrameMasks]) -> list[np.ndarray]:
    return [decode(rle) for result in results for rle in result.rles]


@pytest.mark.parametrize("prompts", [(BOX,), ()])
@pytest.mark.parametrize("explicit", [False, True])
def test_tracker_and_masks_share_one_pass_per_frame(
    weights: Path, counted: list[int], prompts: tuple[Prompt, ...], explicit: bool
) -> None:
    options = {"weights": str(weights)} if explicit else {}
    results = list(
        segment_frames(
            pictures(), tracker="sam2", model=str(weights), prompts=prompts, tracker_options=options, device="cpu"
        )
    )
    assert counted[0] == COUNT
    assert results[-1].ids


def test_other_weights_are_another_network_with_a_pass_of_its_own(weights: Path, counted: list[int]) -> None:
    sam = tiny_sam()
    counter = EncoderCounter(sam)
    options = {"weights": str(weights)}
    list(
        segment_frames(pictures()[:3], tracker="sam2", model=sam, prompts=[BOX], tracker_options=options, zoom="never")
    )
    assert (counted[0], counter.images) == (3, 3)
    other = Sam2AsSam(network("video_hq_legacy"))
    counted[0] = 0
    list(segment_frames(pictures()[:3], tracker="sam2", model=other, prompts=[BOX], tracker_options=options))
    assert counted[0] == 6


def test_what_is_shared_follows_the_model_from_video_to_video() -> None:
    tracker, loads = Sam2Tracker(lambda: pytest.fail("not needed"), Sam2Options()), network()
    for sam in (Sam2AsSam(loads), Sam2AsSam(network("video_hq_legacy"))):
        assert tracker.share(sam)
        tracker.start(VideoInfo(WIDTH, HEIGHT, Fraction(24)))
        assert tracker.net is sam.net
    assert not tracker.share(tiny_sam())
    with pytest.raises(UsageError, match="only with a shared network"):
        tracker.features(pictures()[0])


def test_without_a_sam_2_to_share_the_tracker_loads_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path))
    tracker = build_tracker("sam2", offline=True)
    with pytest.raises(WeightsError, match=r"sam2\.1-hiera-tiny"):
        tracker.start(VideoInfo(WIDTH, HEIGHT, Fraction(24)))


def test_the_manifest_names_the_weights_that_are_used(weights: Path, tmp_path: Path) -> None:
    official = tmp_path / "official.pt"
    save_sam2(network(), official)
    for model in (str(weights), str(official), "sam2.1-hq-hiera-large", f"sam2-hiera-tiny={tmp_path / 'gone.pt'}"):
        assert weights_used("tracker", "sam2", {}, model) == model
    for model in ("compact", str(tmp_path / "gone.pt"), str(PROJECT)):
        assert weights_used("tracker", "sam2", {"weights": "auto"}, model) == "sam2.1-hiera-tiny"
    assert weights_used("tracker", "sam2", {"weights": "x.pt"}, str(weights)) == "x.pt"


def test_a_run_that_was_killed_continues_to_the_same_bytes(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_video(config)
    whole = (tmp_path / "out" / "masks.jsonl").read_bytes()
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["weights"]["tracker"] == manifest["weights"]["model"]
    original = Sam2Tracker.step

    def step(self: Sam2Tracker, picture: Frame, prompts: tuple[Prompt, ...] = ()) -> object:
        if picture.index == 9:
            raise RuntimeError("killed")
        return original(self, picture, prompts)

    monkeypatch.setattr(Sam2Tracker, "step", step)
    with pytest.raises(RuntimeError, match="killed"):
        run_video(replace(config, overwrite=True))
    monkeypatch.setattr(Sam2Tracker, "step", original)
    assert run_video(replace(config, resume=True)).frames == COUNT
    assert (tmp_path / "out" / "masks.jsonl").read_bytes() == whole


@pytest.mark.parametrize("refine", ["auto", "box", "none"])
def test_command(config: RunConfig, tmp_path: Path, refine: str) -> None:
    command = ["run", config.input, "--output", str(tmp_path / "cli"), "--tracker", "sam2", "--model", config.model]
    options = ["--refine", refine, "--device", "cpu", "--save", "coco"]
    assert main([*command, *options, "--box", "20,12,62,54", "--point", "2@47,64"]) == 0
    assert main([*command, *options, "--overwrite", "--tracker-option", "max_cond_frames=1"]) == 2


def test_options_are_checked_by_name_and_type() -> None:
    assert Sam2Options.from_mapping({"memory": "official", "forget-after": 3}).forget_after == 3
    for options, words in (
        ({"max_cond": 3}, "did you mean"),
        ({"memory": "best"}, "correct, official"),
        ({"forget_after": -1}, "at least 0"),
    ):
        with pytest.raises(UsageError, match=words):
            build_tracker("sam2", options)


def test_an_absent_object_is_forgotten_when_asked() -> None:
    ours = Sam2Tracker(network(), Sam2Options(forget_after=2))
    ours.start(VideoInfo(WIDTH, HEIGHT, Fraction(24)))
    ours.step(pictures()[0], [Prompt(0, 1, mask=disc(SEED, 0, HEIGHT, WIDTH, 0))])
    ours._forget_absent(set())
    assert 1 in ours._stores
    ours._forget_absent(set())
    assert not ours._stores


def test_half_precision_follows_nearly_the_same_masks() -> None:
    half = place_sam2(Case("video_correction").network(), torch.device("cpu"), torch.bfloat16)
    both = [
        masks_of(list(segment_frames(pictures()[:4], tracker=Sam2Tracker(net), model=Sam2AsSam(net), prompts=[BOX])))
        for net in (network(), half)
    ]
    for exact, close in zip(*both, strict=True):
        assert (exact != close).mean() < 0.05
