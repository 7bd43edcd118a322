"""Boxes, palettes, overlaps and mask images given by the user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg.errors import OutputError, UsageError
from vidseg.masks import (
    box_iou,
    clip_boxes,
    color_of,
    davis_palette,
    empty_rle,
    encode,
    mask_box,
)
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.paste import LogitWindow, resolve_overlaps

SIZE = 40, 60  # height, width


def index_image() -> np.ndarray:
    index = np.zeros(SIZE, np.uint8)
    index[5:20, 10:30], index[25:35, 40:55] = 1, 3
    return index


def test_box_of_a_mask():
    assert mask_box(index_image() == 3).tolist() == [40, 25, 55, 35]
    assert mask_box(np.zeros(SIZE, np.bool_)).tolist() == [0, 0, 0, 0]


def test_iou_of_boxes():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    assert box_iou(a, b) == pytest.approx(np.array([[1 / 3, 0, 1], [0, 0, 0]]))
    assert box_iou(a[:0], b).shape == (0, 3)
    assert clip_boxes(np.array([[-5, 3, 70, 80]], np.float32), 60, 40).tolist() == [[0, 3, 60, 40]]


def test_palettes():
    davis = davis_palette()
    assert davis.shape == (256, 3)
    assert davis[:9].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [128, 128, 128],
        [64, 0, 0],
    ]
    assert davis[255].tolist() == [224, 224, 192]
    assert len(np.unique(davis, axis=0)) == 256


_CONES = {  # Machado, Oliveira and Fernandes 2009: linear RGB as seen without one kind of cones
    "all": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(color, cones):
    """CIE L*a*b* of an sRGB colour as it is seen."""
    value = np.array(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    rgb = np.clip(np.array(_CONES[cones]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", _CONES)
def test_colours_of_objects_are_told_apart_by_all_eyes(cones):
    colors = [seen(color_of(k), cones) for k in range(1, 11)]
    apart = [np.linalg.norm(a - b) for k, a in enumerate(colors) for b in colors[:k]]
    assert min(apart) >= 17.9
    assert min(np.linalg.norm(a - b) for k, a in enumerate(colors[:4]) for b in colors[:k]) > 30
    assert color_of(11) == color_of(1)


def test_overlaps_go_to_the_higher_logit():
    a = LogitWindow(torch.full((4, 4), 1.0), 0, 0)
    b = LogitWindow(torch.tensor([[2, -1, 0.5, 1]] * 4), 2, 2)
    labels = resolve_overlaps({7: a, 300: b}, (8, 9))
    assert labels.shape == (8, 9) and labels.dtype == torch.int32
    assert labels[:2, :4].eq(7).all() and labels[:4, :2].eq(7).all()
    assert labels[2:6, 2:6].tolist() == [[300, 7, 300, 300]] * 2 + [[300, 0, 300, 300]] * 2  # -1: nobody's
    assert int((labels > 0).sum()) == 16 + 12 - 2
    equal = resolve_overlaps({9: a, 2: a}, (8, 8), torch.uint8)
    assert equal.unique().tolist() == [0, 9]


def test_label_map_paints_ids():
    index = index_image()
    rles = (encode(index == 1), encode(index == 3), empty_rle(*SIZE))
    masks = FrameMasks(0, 0, 0.0, (7, 300, 9), np.zeros((3, 4), np.float32), np.ones(3, np.float32), (None,) * 3, rles)
    assert (masks.label_map == np.where(index == 1, 7, np.where(index == 3, 300, 0))).all()
    assert masks.label_map.dtype == np.uint16  # the smallest that holds 300
    assert masks.label_map is masks.label_map  # decoded once
    assert (masks.masks == [index == 1, index == 3, np.zeros(SIZE)]).all()
    assert [(i, *window.shape, y, x) for i, window, y, x in masks.windows()] == [
        (7, 15, 20, 5, 10),
        (300, 10, 15, 25, 40),
    ]
    with pytest.raises(OutputError, match="mask of 60x40, the frame is 61x40"):
        _ = replace(masks, hw=(40, 61)).label_map
    nothing = FrameMasks(5, 0, 0.0, (), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), ())
    with pytest.raises(UsageError, match="frame 5: no objects, and the size of the frame is not known"):
        _ = nothing.label_map
    assert not replace(nothing, hw=SIZE).label_map.any()


def save(tmp_path, picture: Image.Image, name: str = "mask.png"):
    picture.save(tmp_path / name)
    return tmp_path / name
