"""Quality of masks from boxes: mIoU and mBIoU at the original resolution (HQ-SAM, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidseg.masks.boundary import band_width, boundary_band
from vidseg.sam.config import Output
from vidseg.sam.model import Sam
from vidseg.sam.prompts import Prompts
from vidseg.training.items import Item, load
from vidseg.training.prompts import tight_box

Predictor = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over masks, in 0..1."""

    miou: float
    mbiou: float
    count: int


def noisy_box(
    rng: np.random.Generator, box: npt.NDArray[np.float32], scale: float, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Box noise of HQ-SAM, table 13 (as in DN-DETR): centre +-scale/2 of the side, sides +-scale, cut at the image."""
    x1, y1, x2, y2 = (float(v) for v in box)
    w, h = x2 - x1, y2 - y1
    u = rng.uniform(-1, 1, 4) * scale * np.array([w / 2, h / 2, w, h])
    cx, cy, nw, nh = (x1 + x2) / 2 + u[0], (y1 + y2) / 2 + u[1], w + u[2], h + u[3]
    noisy = np.array([cx - nw / 2, cy - nh / 2, cx + nw / 2, cy + nh / 2])
    return np.clip(noisy, 0, [width, height, width, height]).astype(np.float32)


def mask_scores(found: npt.NDArray[Any], wanted: npt.NDArray[Any], ratio: float = 0.02) -> tuple[float, float]:
    """IoU and boundary IoU of two masks (H, W); 1 where both are empty."""
    width = band_width(*wanted.shape, ratio)
    return _iou(found, wanted), _iou(boundary_band(found, width), boundary_band(wanted, width))


def _iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    union = np.count_nonzero((a != 0) | (b != 0))
    return float(np.count_nonzero((a != 0) & (b != 0)) / union) if union else 1.0


def sam_predictor(sam: Sam, output: Output) -> Predictor:
    """Masks (N, H, W) of ``sam`` for the boxes (N, 4) on an image."""

    def predict(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        features = sam.encode([image])
        masks = sam.decode(features, [Prompts(boxes=boxes)], output=output)
        return (masks[0].upsampled()[:, 0] > 0).numpy()

    return predict


def measure(predict: Predictor, items: Sequence[Item], noise: float = 0.0, seed: int = 0) -> Quality:
    """Mean IoU and boundary IoU of ``predict`` over all masks of ``items``, boxes from the ground truth.

    With ``noise`` the boxes are disturbed, see :func:`noisy_box`; the same seed gives the same boxes.
    """
    scores = []
    for index, item in enumerate(items):
        sample = load(item)
        rng = np.random.default_rng((seed, index))
        wanted = [m for m in sample.masks if (m > 128).any()]
        if not wanted:
            continue
        boxes = np.stack([tight_box(m) for m in wanted])
        if noise:
            boxes = np.stack([noisy_box(rng, b, noise, *sample.image.shape[:2]) for b in boxes])
        for found, mask in zip(predict(sample.image, boxes), wanted, strict=True):
            scores.append(mask_scores(found, mask > 128))
    means = np.mean(scores, axis=0)
    return Quality(float(means[0]), float(means[1]), len(scores))
