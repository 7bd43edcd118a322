"""What a result can be turned into."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.outputs.overlay import draw_masks
from vidseg.types import Frame

FRAME = Frame(12, 0, 0.5, np.full((48, 64, 3), 90, np.uint8))


def result() -> FrameMasks:
    labels = np.zeros((48, 64), np.int32)
    labels[5:20, 5:15], labels[30:40, 20:60] = 3, 7
    places = {i: (slice(0, 48), slice(0, 64)) for i in (3, 7)}
    return FrameMasks.from_label_map(FRAME, labels, [3, 7], np.array([0.5, 0.25], np.float32), ["bear", None], places)


def test_its_repr_is_one_line_however_many_pixels_there_are() -> None:
    assert repr(result()) == "FrameMasks(frame 12, 0.500 s, 64x48, objects: 3 bear, 7)"
    empty = FrameMasks(0, 0, 0.0, (), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), ())
    assert repr(empty) == "FrameMasks(frame 0, 0.000 s, objects: none)"


def test_fields_that_do_not_agree_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"fields do not agree on N: 1 ids, boxes \(0, 4\), scores \(0,\), 0 labels"):
        FrameMasks(0, 0, 0.0, (1,), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), ())


def test_as_coco_annotations() -> None:
    bear, other = result().to_coco()
    assert (bear["id"], bear["image_id"], bear["category_name"], other["category_name"]) == (3, 12, "bear", None)
    assert (bear["bbox"], bear["area"], other["score"]) == ([5, 5, 10, 15], 150, 0.25)
    assert np.array_equal(coco.decode(other["segmentation"]) == 1, result().masks[1])


def test_as_detections_of_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=lambda **fields: fields))
    found = result().to_supervision()
    assert found["xyxy"].tolist() == [[5, 5, 15, 20], [20, 30, 60, 40]]
    assert np.array_equal(found["mask"], result().masks)
    assert (found["tracker_id"].tolist(), found["data"]["class_name"].tolist()) == ([3, 7], ["bear", ""])
    assert found["class_id"] is None
    named = replace(result(), labels=("bear", "fox"))
    assert named.to_supervision(["cat", "fox", "bear"])["class_id"].tolist() == [2, 1]
    with pytest.raises(UsageError, match=r"the classes \['cat', 'bear'\] do not have 'fox'"):
        named.to_supervision(["cat", "bear"])
    with pytest.raises(UsageError, match="do not have None"):
        result().to_supervision(["cat", "bear"])
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="pip install supervision"):
        result().to_supervision()


def test_results_are_equal_by_value_also_after_a_journey_between_processes() -> None:
    assert result() == result() and result() in [result()]
    assert result() != replace(result(), scores=np.array([0.5, 0.75], np.float32)) and result() != "a result"
    copied = pickle.loads(pickle.dumps(result()))
    assert copied == result() and np.array_equal(copied.label_map, result().label_map)
    for one in (result(), copied):
        assert not one.label_map.flags.writeable and one.label_map is one.label_map


@pytest.mark.parametrize("given", [FRAME.rgb / 255, FRAME.rgb[..., 0], np.zeros((48, 64, 4), np.uint8), "frame.png"])
def test_what_is_no_frame_is_not_drawn_on(given: Any) -> None:
    with pytest.raises(UsageError, match=r"draw: a frame of uint8 RGB \(H, W, 3\) expected, got "):
        result().draw(given)


def test_drawn_on_its_frame() -> None:
    picture = result().draw(FRAME)
    assert np.array_equal(result().draw(Image.fromarray(FRAME.rgb)), picture)
    assert np.array_equal(picture, draw_masks(FRAME.rgb, result())) and (picture != 90).any()
    assert np.array_equal(result().draw(FRAME.rgb), picture)
    assert (FRAME.rgb == 90).all()
    with pytest.raises(UsageError, match="draw: the frame is 10x10, the masks are 64x48"):
        result().draw(np.zeros((10, 10, 3), np.uint8))
