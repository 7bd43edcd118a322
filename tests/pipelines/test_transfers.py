"""How often the host waits for the device while masks are drawn: twice per micro-batch, whatever is on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fake_device import FakeDevice, OnDevice, on_device
from toys import frames, tiny_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.sam.zoom import Zoom
from vidseg.types import Tracks
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner


def tracks(index: int, count: int, *, masks: bool = True) -> Tracks:
    """Objects side by side, each sure of a band of its own."""
    maps = torch.full((count, 36, 64), 0.05)
    boxes = np.zeros((count, 4), np.float32)
    for row in range(count):
        left, right = 2 + row * 12, 10 + row * 12
        maps[row, 4:30, left:right] = 0.7
        boxes[row] = 2 * left, 8, 2 * right, 60
    own = maps.as_subclass(OnDevice) if masks else None
    return Tracks(index, np.arange(1, count + 1), boxes, np.ones(count, np.float32), masks=own)


def refine(
    frame_count: int, objects: int, mode: Mode, zoom: Zoom, *, masks: bool
) -> tuple[dict[str, int], list[FrameMasks]]:
    sam = on_device(tiny_sam())
    clip = frames(frame_count)
    with FakeDevice() as device:
        followed = [tracks(frame.index, objects, masks=masks) for frame in clip]
        refiner = Refiner(sam, RefineOptions(mode, zoom=zoom))
        results = refiner.refine(clip, sam.encode([frame.rgb for frame in clip]), followed)
    return dict(+device.waits), results


@pytest.mark.parametrize(
    ("mode", "zoom", "masks"),
    [
        ("auto", "never", True),
        ("auto", "always", True),
        ("box", "never", False),
        ("box", "always", True),
        ("none", "never", True),
    ],
)
def test_the_device_is_asked_twice_per_micro_batch(mode: Mode, zoom: Zoom, masks: bool) -> None:
    few, _ = refine(1, 1, mode, zoom, masks=masks)
    many, results = refine(4, 5, mode, zoom, masks=masks)
    assert few == many == {"to the host": 2}
    if masks:  # what says whether they can be trusted comes with them
        assert all(s is not None and s.certainty is not None for result in results for s in result.signals)
    if mode != "box":  # random weights may draw nothing in a box
        assert [result.ids for result in results] == [(1, 2, 3, 4, 5)] * 4


def test_keeping_still_objects_asks_once_more() -> None:
    sam, clip = on_device(tiny_sam()), frames(3)
    with FakeDevice() as device:
        refiner = Refiner(sam, RefineOptions(keep_still=True, zoom="never"))
        still = refiner.still_masks()
        for _ in range(2):
            device.waits.clear()
            refiner.refine(clip, [None] * 3, [tracks(frame.index, 4) for frame in clip], still=still)
            assert dict(+device.waits) == {"to the host": 3}


def test_masks_of_the_device_equal_those_of_the_cpu() -> None:
    sam, clip = tiny_sam(), frames(2)
    _, results = refine(2, 3, "auto", "never", masks=True)
    followed = [tracks(frame.index, 3) for frame in clip]
    plain = [Tracks(t.frame_index, t.ids, t.boxes, t.scores, masks=t.masks.as_subclass(torch.Tensor)) for t in followed]  # type: ignore[union-attr]
    expected = Refiner(sam).refine(clip, sam.encode([frame.rgb for frame in clip]), plain)
    assert [r.rles for r in results] == [r.rles for r in expected]
