from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidseg.errors import InputError, UsageError
from vidseg.prompt_text import boxes_beyond, parse_prompts
from vidseg.types import VideoInfo

VIDEO = VideoInfo(width=64, height=48, fps=Fraction(24))


def test_boxes_and_points_get_ids_in_order_and_explicit_ids_are_kept() -> None:
    prompts = parse_prompts(boxes=["1,2,30,40", "1@7:5,5,9,9"], points=["10,20", "4:1,1/-2,3"], video=VIDEO)
    assert [(p.frame_index, p.object_id) for p in prompts] == [(0, 2), (0, 3), (4, 4), (7, 1)]
    assert prompts[0].box == (1, 2, 30, 40)
    assert prompts[2].points == ((1, 1), (2, 3))
    assert prompts[2].point_labels == (1, 0)


def test_first_frame_is_the_one_meant_when_none_is_named() -> None:
    (prompt,) = parse_prompts(boxes=["0,0,5,5"], video=VIDEO, first_frame=30)
    assert prompt.frame_index == 30


def test_box_is_cut_at_the_frame() -> None:
    (prompt,) = parse_prompts(boxes=["-5,10,70,90"], video=VIDEO)
    assert prompt.box == (0, 10, 64, 48)


def test_mask_ids_come_from_the_file(tmp_path: Path) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[5:20, 5:20], labels[30:40, 30:40] = 2, 5
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0] * 128)
    image.save(tmp_path / "m.png")
    prompts = parse_prompts(masks=[f"3:{tmp_path / 'm.png'}"], boxes=["1,1,9,9"], video=VIDEO)
    assert [(p.frame_index, p.object_id) for p in prompts] == [(0, 1), (3, 2), (3, 5)]
    assert prompts[1].mask is not None
    assert prompts[1].mask.sum() == 225


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("boxes", "1,2,3", r"expected \[ID@\]\[FRAME:\]x1,y1,x2,y2"),
        ("boxes", "a,b,c,d", r"expected \[ID@\]\[FRAME:\]x1,y1,x2,y2"),
        ("boxes", "9,9,3,12", "x1 < x2"),
        ("boxes", "70,5,90,9", "outside the frame, which is 64x48"),
        ("boxes", "nan,1,5,5", "x1 < x2"),
        ("points", "64,10", "outside the frame"),
        ("points", "1;2", "x,y"),
        ("points", "-5,5", "at least one click must be on the object"),
    ],
)
def test_wrong_prompts_are_one_clear_line(kind: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_prompts(video=VIDEO, **{kind: [text]})  # type: ignore[arg-type]


def test_same_object_twice_on_a_frame() -> None:
    with pytest.raises(UsageError, match="object 1 is prompted twice on frame 0"):
        parse_prompts(boxes=["1@1,1,5,5", "1@2,2,6,6"], video=VIDEO)


def test_missing_mask_file() -> None:
    with pytest.raises(InputError, match=r"nowhere\.png"):
        parse_prompts(masks=["nowhere.png"], video=VIDEO)


def test_a_box_of_another_size_of_picture_is_a_note() -> None:
    assert boxes_beyond(["1,2,30,40", "-9,-9,66,50"], (48, 64)) == []
    (note,) = boxes_beyond(["1,2,30,40", "7@5:1,2,300,40"], (48, 64))
    assert note.startswith("--box 7@5:1,2,300,40 ends outside the frame, which is 64x48 pixels")
    assert boxes_beyond(["1,2,30,400"], (48, 64)) != []


def test_a_box_and_clicks_of_one_id_on_one_frame_are_one_prompt() -> None:
    (prompt,) = parse_prompts(boxes=["1@1,2,30,40"], points=["1@0:5,6/-20,30", "1@7,8"], video=VIDEO)
    assert (prompt.frame_index, prompt.object_id, prompt.box) == (0, 1, (1, 2, 30, 40))
    assert prompt.points == ((5, 6), (20, 30), (7, 8))
    assert prompt.point_labels == (1, 0, 1)


def test_clicks_on_background_alone_go_with_a_box_or_correct_an_earlier_object() -> None:
    first, later = parse_prompts(boxes=["1@1,2,30,40"], points=["1@-5,6", "1@3:-7,8"], video=VIDEO)
    assert first.point_labels == later.point_labels == (0,)
    with pytest.raises(UsageError, match="object 1 on frame 0: at least one click must be on the object"):
        parse_prompts(boxes=["1@3:1,2,30,40"], points=["1@-5,6"], video=VIDEO)


def test_a_mask_is_not_mixed_with_clicks(tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(UsageError, match="object 1 is prompted twice on frame 0: a mask is used unchanged"):
        parse_prompts(masks=[str(tmp_path / "m.png")], points=["1@5,5"], video=VIDEO)
