"""Masks of a frame to a line of the journal and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vidseg.limits import HIGHEST_LIMIT
from vidseg.masks.boxes import mask_box
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.rle import decode, encode, from_coco
from vidseg.masks.trust import Signals
from vidseg.outputs.journal import journal_line
from vidseg.types import Frame
from vidseg_pipelines.web.results import Objects

Mask = npt.NDArray[np.bool_]


def masks_in(objects: Objects) -> dict[int, Mask]:
    """Masks (H, W) by id."""
    return {int(o["id"]): decode(from_coco(o["rle"], HIGHEST_LIMIT)) for o in objects}


def signals_in(objects: Objects) -> dict[int, Signals]:
    """What was measured of how far masks can be trusted, by id, where it was."""
    return {int(o["id"]): Signals.from_dict(o["signals"]) for o in objects if "signals" in o}


def line_of(
    frame: Frame,
    masks: Mapping[int, Mask],
    scores: Mapping[int, float],
    names: Mapping[int, str],
    signals: Mapping[int, Signals],
) -> bytes:
    """The line of a frame with these masks, which are disjoint; empty ones are left out."""
    ids = sorted(i for i, mask in masks.items() if mask.any())
    return journal_line(
        FrameMasks(
            frame.index,
            frame.pts,
            frame.time_s,
            tuple(ids),
            np.array([mask_box(masks[i]) for i in ids], np.float32).reshape(len(ids), 4),
            np.array([scores.get(i, 1.0) for i in ids], np.float32),
            tuple(names.get(i) or None for i in ids),
            tuple(encode(masks[i]) for i in ids),
            name=frame.name,
            signals=tuple(signals.get(i) for i in ids),
        )
    )


def stroke(shape: tuple[int, int], points: list[tuple[float, float]], radius: float) -> Mask:
    """Pixels (H, W) under a round brush that is drawn along ``points`` (x, y)."""
    import cv2

    canvas = np.zeros(shape, np.uint8)
    path = np.array([[round(x), round(y)] for x, y in points], np.int32)
    width = max(1, round(2 * radius))
    if len(path) > 1:
        cv2.polylines(canvas, [path.reshape(-1, 1, 2)], False, 1, width)
    for x, y in (path[0], path[-1]):
        cv2.circle(canvas, (int(x), int(y)), max(0, width // 2), 1, -1)
    return canvas.astype(np.bool_)
