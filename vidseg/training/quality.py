"""Quality of masks from boxes: mIoU and mBIoU at the original resolution (HQ-SAM, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidseg.datasets.pairs import Item, Mask, load
from vidseg.errors import InputError
from vidseg.evaluation.box_noise import noisy_boxes
from vidseg.evaluation.region import mask_scores
from vidseg.sam.config import Output
from vidseg.sam.model import Sam, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import draw_closely
from vidseg.training.simulated_prompts import tight_box

Predictor = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], Mapping[str, npt.NDArray[np.bool_]]]
"""Masks (N, H, W) by name (of an output, of a method) for the boxes (N, 4) on an image."""


@dataclass(frozen=True, slots=True)
class Score:
    """IoU and boundary IoU of one mask, the source of its image, and the share of its box that the object fills."""

    source: str
    iou: float
    boundary: float
    fill: float = 1.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over masks, in 0..1."""

    miou: float
    mbiou: float
    count: int

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Quality:
        """Mean of ``scores``. Raises ``InputError`` when there are none."""
        if not scores:
            raise InputError("no image with a mask to measure on")
        return cls(float(np.mean([s.iou for s in scores])), float(np.mean([s.boundary for s in scores])), len(scores))

    @classmethod
    def over_sources(cls, scores: Sequence[Score]) -> Quality:
        """Mean of the means of the sources, each of which counts the same."""
        each = [cls.of([s for s in scores if s.source == source]) for source in sorted({s.source for s in scores})]
        return cls(float(np.mean([q.miou for q in each])), float(np.mean([q.mbiou for q in each])), len(scores))


def sam_predictor(sam: SegmentAnything, outputs: Sequence[Output]) -> Predictor:
    """The masks of every one of ``outputs``; the image is encoded once."""

    def predict(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.bool_]]:
        features = sam.encode([image])
        answers = {o: sam.decode(features, [PromptBatch(boxes=boxes)], output=o)[0] for o in outputs}
        return {o: (masks.upsampled()[:, 0] > 0).cpu().numpy() for o, masks in answers.items()}

    return predict


def zoom_predictor(sam: Sam) -> Predictor:
    """The masks that users get, with a second, closer look at every object (:mod:`vidseg.sam.zoom`)."""

    def predict(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.bool_]]:
        (features,) = sam.encode([image])
        logits, _ = draw_closely(sam, image, features, PromptBatch(boxes=boxes), "always")
        return {"zoom": (logits[:, 0] > 0).cpu().numpy()}

    return predict


def measure(predict: Predictor, items: Sequence[Item], noise: float = 0.0, seed: int = 0) -> dict[str, list[Score]]:
    """IoU and boundary IoU of all masks of ``items``, boxes from the ground truth, by name of the prediction.

    With ``noise`` the boxes are disturbed (HQ-SAM, table 13); the same seed gives the same boxes.
    """
    scores: dict[str, list[Score]] = {}
    for index, item in enumerate(items):
        sample = load(item)
        wanted = [m for m in sample.masks if (m > 128).any()]
        if not wanted:
            continue
        boxes = np.stack([tight_box(m) for m in wanted])
        if noise:
            rng = np.random.default_rng((seed, index))
            boxes = noisy_boxes(boxes, noise, rng, canvas=float(max(sample.image.shape))).astype(np.float32)
        for name, found in predict(sample.image, boxes).items():
            for mask, answer in zip(wanted, found, strict=True):
                pair = mask_scores(mask > 128, answer)
                if pair is not None:
                    scores.setdefault(name, []).append(Score(item.source, *pair, _fill(mask)))
    return scores


def _fill(mask: Mask) -> float:
    x1, y1, x2, y2 = tight_box(mask)
    return float(np.count_nonzero(mask > 128) / ((x2 - x1) * (y2 - y1)))
