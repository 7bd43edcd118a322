"""What users make themselves: prompts and frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidseg import Frame, Prompt
from vidseg.errors import UsageError


def test_prompts_take_numbers_of_any_library_and_are_equal_by_value() -> None:
    box, points, labels = np.array([1, 2, 3.5, 4]), np.array([[5, 6], [7, 8]], np.float32), np.array([1, 0])
    given = Prompt(0, 1, box=box, points=points, point_labels=labels)  # type: ignore[arg-type]
    assert given == Prompt(0, 1, box=(1, 2, 3.5, 4), points=((5, 6), (7, 8)), point_labels=(1, 0))
    assert given in {given} and given != Prompt(0, 1, box=(1, 2, 3.5, 4))
    mask = np.eye(3, dtype=np.bool_)
    kept = Prompt(0, 1, mask=mask)
    mask[:] = True
    assert kept == Prompt(0, 1, mask=np.eye(3, dtype=np.bool_)) and kept != Prompt(0, 1, mask=mask)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"box": np.array([1, 2, 3])}, r"box array\(\[1, 2, 3\]\): finite numbers x1, y1, x2, y2 expected"),
        ({"box": "1,2,3,4"}, "box '1,2,3,4': finite numbers"),
        ({"box": (1, 2, float("inf"), 4)}, "box .*: finite numbers"),
        ({"points": (1, 2), "point_labels": (1, 1)}, "point 1: finite numbers x, y expected"),
        ({"points": ((1, float("nan")),), "point_labels": (1,)}, r"point \(1, nan\): finite numbers x, y expected"),
        ({"mask": [[1, 0], [0, 1]]}, r"prompt mask must be bool \(H, W\), got \[\[1, 0\], \[0, 1\]\]"),
    ],
)
def test_what_is_no_prompt_is_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Prompt(0, 1, **said)


def test_frames_are_arrays_with_whole_numbers_and_equal_pixel_by_pixel() -> None:
    rgb = np.zeros((4, 5, 3), np.uint8)
    assert Frame(0, 0, 0.0, rgb) == Frame(0, 0, 0.0, rgb.copy()) != Frame(0, 0, 0.0, rgb + np.uint8(1))
    for index, pixels in ((0.5, rgb), ("0", rgb), (0, rgb.tolist())):
        with pytest.raises(UsageError, match=r"frame 0\.5: its index|frame '0': its index|frame 0: rgb must be uint8"):
            Frame(index, 0, 0.0, pixels)  # type: ignore[arg-type]
