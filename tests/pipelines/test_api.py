"""The Python front door: what is wrong is said at the call, and nothing given is dropped without a word."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media import write_video
from toys import BoxesEverywhere, KeepMasks, frames, tiny_sam
from vidseg import segment_frames, segment_video
from vidseg.errors import UsageError, WeightsError
from vidseg.types import Frame, Prompt, Proposal
from vidseg_pipelines import run as run_module

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
        ({"detector_options": {"size": 3}}, "detector_options are for a detector that is named"),
        ({"tracker": BoxesEverywhere(1), "prompts": [Prompt(0, 1, box=BOX)]}, "leave out the prompts"),
        ({"frames": "video.mp4"}, "an iterable of images expected, got str"),
        ({"frames": 5}, "an iterable of images expected, got int"),
        ({"frames": IMAGES[0]}, r"an array \(N, H, W, 3\) expected, got shape \(48, 64, 3\)"),
        ({"frames": iter(IMAGES), "prompts": [Prompt(0, 1, box=BOX)] * 2}, "object 1 on frame 0 is given twice"),
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


@pytest.mark.parametrize("settings", [{}, {"batch": 4}, {"fps": Fraction(30000, 1001)}, {"batch": np.int64(2)}])
def test_right_settings_give_a_result_per_frame(settings: dict[str, Any]) -> None:
    for given in (IMAGES, iter(IMAGES), np.stack(IMAGES)):
        found = list(masks(frames=given, prompts=[Prompt(0, 3, box=BOX)], **settings))
        assert [m.frame_index for m in found] == list(range(COUNT))
        assert all(m.ids == (3,) for m in found)


def test_a_prompt_whose_frame_never_came_is_a_warning_at_the_end() -> None:
    prompts = [Prompt(0, 1, box=BOX), Prompt(500, 7, box=BOX)]
    found = masks(frames=iter(IMAGES), prompts=prompts)
    results = [next(found) for _ in range(COUNT)]
    assert all(m.ids == (1,) for m in results)
    with pytest.warns(UserWarning, match="prompts of object 7 were not used: the input gave no frame 500"):
        assert list(found) == []


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
    monkeypatch.setattr(run_module, "load_sam", lambda *a, **k: tiny_sam())
    monkeypatch.setattr(run_module, "build_tracker", lambda *a, **k: KeepMasks())
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
