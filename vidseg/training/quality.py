"""Quality of masks from boxes: mIoU and mBIoU at the original resolution (HQ-SAM, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidseg.errors import InputError
from vidseg.evaluation.box_noise import noisy_boxes
from vidseg.evaluation.region import mask_scores
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


def sam_predictor(sam: Sam, output: Output) -> Predictor:
    """Masks (N, H, W) of ``sam`` for the boxes (N, 4) on an image."""

    def predict(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        features = sam.encode([image])
        masks = sam.decode(features, [Prompts(boxes=boxes)], output=output)
        return (masks[0].upsampled()[:, 0] > 0).numpy()

    return predict


def measure(predict: Predictor, items: Sequence[Item], noise: float = 0.0, seed: int = 0) -> Quality:
    """Mean IoU and boundary IoU of ``predict`` over all masks of ``items``, boxes from the ground truth.

    With ``noise`` the boxes are disturbed (HQ-SAM, table 13); the same seed gives the same boxes.
    """
    scores = []
    for index, item in enumerate(items):
        sample = load(item)
        wanted = [m for m in sample.masks if (m > 128).any()]
        if not wanted:
            continue
        boxes = np.stack([tight_box(m) for m in wanted])
        if noise:
            rng = np.random.default_rng((seed, index))
            boxes = noisy_boxes(boxes, noise, rng, canvas=float(max(sample.image.shape))).astype(np.float32)
        for found, mask in zip(predict(sample.image, boxes), wanted, strict=True):
            pair = mask_scores(mask > 128, found)
            if pair is not None:
                scores.append(pair)
    if not scores:
        raise InputError("no image with a mask to measure on")
    means = np.mean(scores, axis=0)
    return Quality(float(means[0]), float(means[1]), len(scores))
