"""Box prompts of the papers' tables: the box of a mask, and boxes with noise (table 13 of the HQ-SAM paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.errors import UsageError

Boxes = npt.NDArray[np.float32]
CANVAS = 1024
_NO_BOX = (1e8, 1e8, 0.0, 0.0)


def prompt_box(mask: npt.NDArray[Any]) -> Boxes:
    """Box of a mask (H, W) as the HQ-SAM evaluation prompts with it: float32 (4,), XYXY of the first and LAST pixel.

    Unlike the boxes of the rest of vidseg the right and bottom are inclusive; without any pixel (1e8, 1e8, 0, 0).
    """
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return np.array(_NO_BOX, np.float32)
    return np.array((columns[0], rows[0], columns[-1], rows[-1]), np.float32)


def noisy_boxes(boxes: Boxes, scale: float, rng: np.random.Generator, canvas: float = CANVAS) -> Boxes:
    """``boxes`` (N, 4), XYXY pixels, with noise of ``scale`` (0.2 and 0.4 in table 13) drawn from ``rng``."""
    return add_noise(boxes, rng.random(boxes.shape, np.float32), scale, canvas)


def add_noise(boxes: Boxes, draws: Boxes, scale: float, canvas: float = CANVAS) -> Boxes:
    """Move ``boxes`` (N, 4), XYXY pixels, by ``draws`` (N, 4), uniform in [0, 1): float32, clamped to [0, canvas].

    With u = 2 * draw - 1: the centre moves by u * scale * half the side, the sides grow by u * scale * side (the scheme
    of DN-DETR, Li et al., CVPR 2022, section 4.2).

    Raises:
        UsageError: shapes that differ, or a scale outside 0..1 (beyond 1 boxes turn inside out).
    """
    noisy = _moved(_to_centre(_checked(boxes, draws, scale)), draws, scale)
    centre, half = noisy[:, :2], np.float32(0.5) * noisy[:, 2:]
    return np.clip(np.concatenate([centre - half, centre + half], axis=1), np.float32(0), np.float32(canvas))


def add_noise_normalised(boxes: Boxes, draws: Boxes, scale: float) -> Boxes:
    """The same on boxes (N, 4) of centre x, centre y, width, height in 0..1, each clamped to 0..1 as DN-DETR does.

    The corners of the result may leave the image.

    Raises:
        UsageError: as :func:`add_noise`.
    """
    return np.clip(_moved(_checked(boxes, draws, scale), draws, scale), np.float32(0), np.float32(1))


def _checked(boxes: Boxes, draws: Boxes, scale: float) -> Boxes:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or draws.shape != boxes.shape:
        raise UsageError(f"boxes {boxes.shape} and draws {draws.shape}: both must be (N, 4)")
    if not 0 <= scale <= 1:
        raise UsageError(f"box noise {scale:g}: expected a scale of 0 to 1")
    return boxes.astype(np.float32)


def _to_centre(boxes: Boxes) -> Boxes:
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / np.float32(2), high - low], axis=1)


def _moved(boxes: Boxes, draws: Boxes, scale: float) -> Boxes:
    reach = np.concatenate([boxes[:, 2:] / np.float32(2), boxes[:, 2:]], axis=1)
    return boxes + (draws.astype(np.float32) * np.float32(2) - np.float32(1)) * reach * np.float32(scale)
