"""The ``text`` detector: objects of single frames that phrases name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vidseg.masks.boxes import clip_boxes
from vidseg.types import Frame, Proposal
from vidseg_trackers.open_vocabulary.networks import PhraseDetector, load_network
from vidseg_trackers.open_vocabulary.options import DEFAULT_MODEL, TextOptions

DEFAULT_WEIGHTS = DEFAULT_MODEL
MOST_BOXES = 100
"""Boxes of a frame that are looked at, those with the best scores."""


def build(options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool) -> TextDetector:
    """Entry point ``text``. The network computes in float32 whatever ``dtype`` says: the published one does.

    Raises:
        UsageError: unknown or wrong options, no text, or the package transformers is missing.
        WeightsError: the model is not here and cannot be fetched, is damaged, or is no such detector.
    """
    chosen = TextOptions.from_mapping(options)
    return TextDetector(load_network(chosen, device=device, offline=offline), chosen)


class TextDetector:
    """Finds what phrases name on single frames, as boxes; keeps nothing between calls."""

    def __init__(self, network: PhraseDetector, options: TextOptions) -> None:
        """A detector around a network that knows the phrases of ``options``."""
        self.network, self.options = network, options
        self.classes = {phrase: number for number, phrase in enumerate(dict.fromkeys(options.phrases), 1)}
        """Numbers of the phrases, in the order given."""

    @property
    def nothing_found(self) -> str:
        """What a user should know when nothing was found."""
        return (
            f"--text {self.options.text!r} found nothing; try other words, or a lower detector option box_threshold"
            f" ({self.network.box_threshold:g})"
        )

    def detect(self, frame: Frame) -> list[Proposal]:
        """The boxes with a score over ``box_threshold``, best first, labelled with their phrases."""
        boxes, scores, phrases = self.network.find(frame.rgb)
        height, width = frame.hw
        boxes = clip_boxes(boxes, width, height)
        sides = boxes[:, 2:] - boxes[:, :2]
        good = (scores > self.network.box_threshold) & (phrases >= 0) & (sides >= 1).all(1)
        order = [row for row in np.argsort(-scores, kind="stable") if good[row]][:MOST_BOXES]
        names = self.options.phrases
        return [
            Proposal(None, float(scores[row]), names[phrases[row]], box=tuple(boxes[row].tolist())) for row in order
        ]
