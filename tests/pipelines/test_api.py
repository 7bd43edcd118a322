"""The Python front door: what is wrong is said at the call, and nothing given is dropped without a word."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vidseg
from media import write_video
from toys import BoxesEverywhere, KeepMasks, frames, tiny_sam
from vidseg import Session, read_run, segment_frames, segment_video
from vidseg.config import RunConfig
from vidseg.errors import InputError, UsageError, WeightsError
from vidseg.outputs import JournalSink
from vidseg.types import Frame, Prompt, Proposal
from vidseg_pipelines import build
from vidseg_pipelines.api import RunSettings
from vidseg_pipelines.build import ModelChoice, ModelSettings

COUNT, HEIGHT, WIDTH = 6, 48, 64
BOX = (5.0, 5.0, 30.0, 25.0)
IMAGES = [frame.rgb for frame in frames(COUNT, HEIGHT, WIDTH)]


def masks(**settings: Any) -> Any:
    given = {"frames": IMAGES, "tracker": KeepMasks(), "model": tiny_sam(), "refine": "none", **settings}
    return segment_frames(given.pop("frames"), **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch 0: a whole number of at least 1 expected"),
        ({"batch": 1.5}, "batch 1.5: a whole number"),
        ({"max_objects": 0}, "max_objects 0"),
        ({"detect_every": -1}, "detect_every -1: a whole number of at least 0"),
        ({"fps": 0}, "fps 0: a number over 0 expected"),
        ({"fps": float("nan")}, "fps nan"),
        ({"refine": "best"}, "refine 'best'"),
        ({"device": "cuda:99"}, "--device cuda:99"),
        ({"dtype": "int8"}, "--dtype int8"),
        ({"tracker": "xmen"}, "did you mean 'xmem'"),
        ({"detector": "mask3former"}, "unknown detector 'mask3former'"),
        ({"tracker_options": {"mem_every": 3}}, "tracker_options are for a tracker that is named"),
        ({"tracker": 3}, "tracker 3: a name or a Tracker expected"),
        ({"model": 3}, "model 3: a name or a SegmentAnything expected"),
        ({"detector": 3}, "detector 3: a name or a Detector expected"),
        ({"tracker": "xmem", "tracker_options": 3}, "tracker_options 3: a mapping of settings expected"),
        ({"detector_options": {"size": 3}}, "detector_options are for a detector that is named"),
        ({"tracker": BoxesEverywhere(1), "prompts": [Prompt(0, 1, box=BOX)]}, "leave out the prompts"),
        ({"prompts": [BOX]}, r"Prompt objects expected, got \(5.0, .*; texts and numbers go into box, point and mask"),
        ({"prompts": "5,5,30,25"}, "Prompt objects expected, got '5,5,30,25'"),
        ({"box": (5, 5, 30)}, r"box \(5, 5, 30\): finite numbers \(x1, y1, x2, y2\) expected"),
        ({"box": "5,5,30"}, r"--box 5,5,30: expected \[ID@\]\[FRAME:\]x1,y1,x2,y2"),
        ({"box": [BOX, "x"]}, "--box x"),
        ({"point": (5, "a")}, "point"),
        ({"point": [(70, 5)]}, "point 70,5 lies outside the frame, which is 64x48"),
        ({"label": {1: "a\nb"}}, "the name 'a b' has control characters"),
        ({"label": 5}, r"label 5: {id: name} or texts ID=NAME expected"),
        ({"label": "bear"}, "--label bear: ID=NAME expected"),
        ({"mask": np.ones((4, 4), np.bool_)}, r"names of files expected, got ndarray"),
        ({"frames": "video.mp4"}, r"an iterable of images expected, such as open_source\('video.mp4'\); got str"),
        ({"frames": 5}, "an iterable of images expected; got int"),
        ({"frames": IMAGES[0]}, r"an array \(N, H, W, 3\) expected, got shape \(48, 64, 3\)"),
        ({"frames": iter(IMAGES), "prompts": [Prompt(0, 1, box=BOX)] * 2}, "object 1 is prompted twice on frame 0"),
        ({"frames": iter(IMAGES), "prompts": [Prompt(0, 1, mask=np.zeros((48, 64), np.bool_))]}, "the mask is empty"),
        ({"prompts": [Prompt(0, 1, box=(70.0, 5.0, 90.0, 25.0))]}, "lies outside the frame, which is 64x48"),
        ({"prompts": [Prompt(3, 1, mask=np.ones((4, 4), np.bool_))]}, "the mask has 4x4 pixels, the frame 64x48"),
        ({"prompts": [Prompt(COUNT, 1, box=BOX)]}, "a prompt is on frame 6, but there are 6 frames, 0 to 5"),
        (
            {"frames": np.stack(IMAGES), "prompts": [Prompt(COUNT, 1, box=BOX)]},
            "a prompt is on frame 6, but there are 6 frames",
        ),
        (
            {"frames": [Frame(7, 0, 0.0, IMAGES[0])], "prompts": [Prompt(0, 1, box=BOX)]},
            "a prompt is on frame 0, but there are 1 frames, 7 to 7",
        ),
    ],
)
def test_what_is_wrong_is_said_at_the_call(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        masks(**settings)  # nothing is asked of what it returns


def test_missing_weights_are_said_at_the_call_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(tmp_path))
    for settings in ({"model": "sam-hq-vit-l"}, {"tracker": "xmem", "tracker_options": {"weights": "xmem"}}):
        with pytest.raises(WeightsError, match="--offline"):
            masks(offline=True, **settings)


def test_devices_and_types_of_torch_are_taken_too() -> None:
    settings: ModelSettings = {"tracker": KeepMasks(), "model": "compact"}
    models = ModelChoice(**settings, device=torch.device("cpu"), dtype=torch.float32).load()
    assert models.sam.device == torch.device("cpu")
    with pytest.raises(UsageError, match="--device meta: allowed are"):
        ModelChoice(**settings, device=torch.device("meta")).check()


@pytest.mark.parametrize(
    "settings", [{}, {"batch": 4}, {"fps": Fraction(30000, 1001)}, {"batch": np.int64(2)}, {"label": {3: "bear"}}]
)
def test_right_settings_give_a_result_per_frame(settings: dict[str, Any]) -> None:
    for given in (IMAGES, iter(IMAGES), np.stack(IMAGES)):
        found = list(masks(frames=given, prompts=[Prompt(0, 3, box=BOX)], **settings))
        assert [m.frame_index for m in found] == list(range(COUNT))
        assert all(m.ids == (3,) for m in found)
        assert {m.labels for m in found} == {("bear",) if "label" in settings else (None,)}


def test_a_prompt_whose_frame_never_came_is_a_warning_at_the_end() -> None:
    prompts = [Prompt(0, 1, box=BOX), Prompt(500, 7, box=BOX)]
    found = masks(frames=iter(IMAGES), prompts=prompts)
    results = [next(found) for _ in range(COUNT)]
    assert all(m.ids == (1,) for m in results)
    with pytest.warns(UserWarning, match="prompts of object 7 were not used: the input gave no frame 500"):
        assert list(found) == []


def test_one_array_that_is_filled_again_for_every_frame_is_many_frames() -> None:
    def filled_again(buffer: np.ndarray) -> Iterator[np.ndarray]:
        for image in IMAGES:
            buffer[:] = image
            yield buffer

    settings = {"box": BOX, "batch": 4, "refine": "box"}
    expected = list(masks(**settings))
    assert list(masks(frames=filled_again(IMAGES[0].copy()), **settings)) == expected
    assert len({m.rles for m in expected}) > 1


class Detecting:
    """A detector that sees one object on frames 2 and later, each time in another place."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def detect(self, frame: Frame) -> list[Proposal]:
        self.asked.append(frame.index)
        mask = np.zeros(frame.hw, np.bool_)
        mask[5:15, 10 * frame.index : 10 * frame.index + 8] = frame.index >= 2
        return [Proposal(mask, 0.9, "thing")] if mask.any() else []


def test_a_detector_finds_objects_on_the_way() -> None:
    detector = Detecting()
    found = list(masks(detector=detector, detect_every=2, prompts=[Prompt(0, 1, box=BOX)]))
    assert detector.asked == [0, 2, 4]
    assert [len(m.ids) for m in found] == [1, 1, 2, 2, 3, 3]
    assert found[-1].labels[-1] == "thing"


def test_a_configuration_file_is_read_and_keywords_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    video, config = write_video(tmp_path / "clip.mp4", IMAGES), tmp_path / "run.yaml"
    config.write_text("save: davis,coco\nrefine: none\nbox: ['5,5,30,25']\n")
    summary = segment_video(video, tmp_path / "out", config=config, save="davis")
    assert {path.name for path in summary.outputs} == {"davis", "masks.jsonl", "run.json"}
    assert summary.objects == (1,)
    config.write_text("tracker: xmen\n")
    with pytest.raises(UsageError, match="did you mean 'xmem'"):
        segment_video(video, tmp_path / "other", config=str(config))
    with pytest.raises(UsageError, match="cannot read the configuration"):
        segment_video(video, tmp_path / "other", config=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "form",
    [
        {"prompts": [Prompt(0, 1, box=BOX), Prompt(2, 2, points=((40.5, 30.0),), point_labels=(1,))]},
        {"prompts": Prompt(0, 1, box=BOX), "point": "2@2:40.5,30"},
        {"box": BOX, "point": "2:40.5,30"},
        {"box": [5, 5, 30, 25], "point": ["2@2:40.5,30"]},
        {"box": np.array([BOX]), "point": ("2:40.5,30",)},
        {"box": "5,5,30,25", "point": "2:40.5,30"},
    ],
)
def test_prompts_have_the_same_forms_for_frames_and_for_videos(
    form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = tiny_sam()
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: sam)
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    reference = [Prompt(0, 1, box=BOX), Prompt(2, 2, points=((40.5, 30.0),), point_labels=(1,))]
    expected = [m.rles for m in masks(model=sam, prompts=reference)]
    assert len(expected[-1]) == 2
    assert [m.rles for m in masks(model=sam, **form)] == expected
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    segment_video(str(tmp_path / "*.png"), tmp_path / "out", refine="none", save="none", **form)
    assert [m.rles for m in read_run(tmp_path / "out")] == expected


@pytest.mark.parametrize(
    ("part", "indices"),
    [(slice(4, None), [4, 5]), (slice(np.int64(2)), [0, 1]), ("1:3", [1, 2]), (slice(None), list(range(COUNT)))],
)
def test_a_part_of_a_video_is_a_slice_or_a_text(
    part: Any, indices: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    video, out = write_video(tmp_path / "clip.mp4", IMAGES), tmp_path / "out"
    assert segment_video(video, out, box=BOX, refine="none", save="none", frames=part).frames == len(indices)
    assert [m.frame_index for m in read_run(out)] == indices


def test_what_is_no_video_and_no_part_of_one_is_said_at_the_call() -> None:
    with pytest.raises(UsageError, match="frames that are there already go into segment_frames; got list"):
        segment_video(IMAGES)  # type: ignore[arg-type]
    for part, message in ((slice(0, 4, 2), "leave out the step"), (slice(-3, None), "frames -3: a whole number of at")):
        with pytest.raises(UsageError, match=message):
            segment_video("clip.mp4", frames=part)


def test_a_mask_file_is_a_prompt_for_frames_too(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:20, 5:20], labels[30:40, 30:60] = 1, 2
    Image.fromarray(labels).save(tmp_path / "first.png")
    assert [m.ids for m in masks(mask=tmp_path / "first.png", box=BOX)] == [(1, 2, 3)] * COUNT
    with pytest.raises(UsageError, match="the mask has 64x48 pixels, the frame 30x20"):
        list(masks(mask=str(tmp_path / "first.png"), frames=iter([np.zeros((20, 30, 3), np.uint8)])))


def test_prompts_that_no_file_holds_decide_whether_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(build, "build_tracker", lambda *a, **k: KeepMasks())
    video, first, other = write_video(tmp_path / "clip.mp4", IMAGES), *(np.eye(HEIGHT, WIDTH, k) == 1 for k in (0, 3))
    settings: dict[str, Any] = {"refine": "none", "save": "none"}
    segment_video(video, tmp_path / "out", prompts=[Prompt(0, 1, mask=first)], **settings)
    before = (tmp_path / "out" / "masks.jsonl").read_bytes()
    assert segment_video(video, tmp_path / "out", prompts=[Prompt(0, 1, mask=first)], resume=True, **settings).frames
    with pytest.raises(UsageError, match=r"made differently \(prompts\.object 1 on frame 0"):
        segment_video(video, tmp_path / "out", prompts=[Prompt(0, 1, mask=other)], resume=True, **settings)
    assert (tmp_path / "out" / "masks.jsonl").read_bytes() == before


def test_settings_of_a_video_are_those_of_a_run_and_have_types() -> None:
    fields = {field.name for field in dataclasses.fields(RunConfig)} - {"input", "output", "first_found_id"}
    assert RunSettings.__annotations__.keys() == fields | {"detector"}


def test_frames_and_videos_take_the_same_settings() -> None:
    settings = {
        "save",
        "overlay_style",
        "classes",
        "config",
        "frames",
        "json_log",
        "boxes",
        "text",
        "detect_with",
        "drop",
    }
    settings |= {
        "snapshot_every",
        "keep_states",
        "video_id",
        "continue_",
        "direction",
        "from_",
        "resume",
        "overwrite",
        "read_timeout",
        "reconnect",
        "reader",
        "stream",
        "deinterlace",
    }
    settings |= {"max_pixels", "detector_option", "tracker_option"}  # of files and of the command line
    of_frames = (
        inspect.signature(segment_frames).parameters.keys() - {"models"}
    ) | ModelSettings.__annotations__.keys()
    assert of_frames == (RunSettings.__annotations__.keys() - settings) | {"frames", "prompts", "fps", "bgr"}


def test_the_choice_of_models_is_one_for_all_front_doors() -> None:
    assert ModelSettings.__annotations__.keys() == {field.name for field in dataclasses.fields(ModelChoice)}
    for door in (lambda **how: masks(**how), Session):
        with pytest.raises(UsageError, match=r"unknown setting 'trackr' \(did you mean 'tracker'\?\)"):
            door(trackr="xmem")


def test_a_run_is_read_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JournalSink(tmp_path / "masks.jsonl")
    for frame, found in zip(frames(2, HEIGHT, WIDTH), masks(frames=IMAGES[:2], box=BOX), strict=True):
        sink.write(frame, found)
    with (tmp_path / "masks.jsonl").open("ab") as file:
        file.write(b'{"frame":2,"pt')
    assert [m.frame_index for m in read_run(tmp_path)] == [0, 1]
    with pytest.raises(InputError, match=r"contains no masks\.jsonl; give the output folder of a run"):
        read_run(tmp_path / "none")


def test_the_front_door_lists_what_is_behind_it() -> None:
    assert {"Session", "segment_frames", "segment_video", "read_run", "load_sam", "open_source"} <= set(dir(vidseg))
    assert set(vidseg.__all__) <= set(dir(vidseg))
    for name in vidseg.__all__:
        getattr(vidseg, name)
