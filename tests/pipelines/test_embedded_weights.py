"""The weights that ship draw what they drew when the golden masks were written: golden_masks.py writes them."""

from __future__ import annotations

import numpy as np
import pytest

from golden_masks import FRAMES, drawn_by_sam, embedded_tracker, followed, overlap, read, shapes

SAME = 0.99
"""IoU: other CPUs round otherwise, which moves single pixels of an outline."""


def test_the_image_model_draws_the_golden_masks() -> None:
    for name, mask in drawn_by_sam().items():
        assert overlap(mask, read(name)) >= SAME, name


def test_the_tracker_follows_as_in_the_golden_masks() -> None:
    found = followed(embedded_tracker())
    assert len(found) == FRAMES
    for name, labels in found.items():
        assert overlap(labels, read(name)) >= SAME, name


@pytest.mark.parametrize(("name", "least"), [("box", 0.98), ("click", 0.95), ("tracker0", 0.97), ("tracker4", 0.97)])
def test_the_golden_masks_are_good(name: str, least: float) -> None:
    disc, bar = shapes(int(name[-1]) if name[-1].isdigit() else 0)
    truth = {"box": disc, "click": bar}.get(name, disc + np.uint8(2) * bar)
    assert overlap(read(name), truth) >= least
