"""The ``mask2former`` detector: objects of single frames for trackers that want masks."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vidseg.types import Frame, Proposal
from vidseg_trackers.mask2former.classes import class_set
from vidseg_trackers.mask2former.clip import best_objects, once_per_query, query_masks, run_clip
from vidseg_trackers.mask2former.frames import fit_frame, full_logits, shrink
from vidseg_trackers.mask2former.network import Mask2Former
from vidseg_trackers.mask2former.options import Mask2FormerOptions
from vidseg_trackers.mask2former.tracker import trained_size
from vidseg_trackers.mask2former.weights import load_network


def build(
    options: Mapping[str, object], *, device: torch.device, dtype: torch.dtype, offline: bool
) -> Mask2FormerDetector:
    """Entry point ``mask2former``; the settings are the tracker's, those of identities play no part.

    Raises:
        UsageError: unknown or wrong options.
        WeightsError: the weights are missing, damaged or no Mask2Former.
    """
    chosen = Mask2FormerOptions.from_mapping(options)
    network = load_network(chosen.weights, video=chosen.video, device=device, offline=offline)
    return Mask2FormerDetector(network, chosen, dtype=dtype)


class Mask2FormerDetector:
    """Finds objects on single frames; keeps nothing between calls."""

    def __init__(
        self, network: Mask2Former, options: Mask2FormerOptions, *, dtype: torch.dtype = torch.float32
    ) -> None:
        """A detector around a network in evaluation mode, on the network's device."""
        self.network, self.options, self.dtype = network, options, dtype
        classes = class_set(options.classes, network.config.classes, options.weights)
        self.classes = classes.ids
        """Numbers of the data set's classes by name."""
        self._names = classes.names

    @torch.inference_mode()
    def detect(self, frame: Frame) -> list[Proposal]:
        """The objects with at least ``min_score``, best first, at most ``max_objects``; masks can overlap."""
        options = self.options
        sizes = fit_frame(frame.hw, options.size or trained_size(self.network), options.max_size)
        queries, features = run_clip(self.network, [shrink(frame.rgb, sizes)], sizes, self.dtype)
        best = once_per_query(best_objects(queries, options.max_objects), options.min_score)
        logits = query_masks(queries, best.queries, features)[:, 0]
        proposals = []
        for one, score, label in zip(logits, best.scores.tolist(), best.labels.tolist(), strict=True):
            mask = (full_logits(one[None], sizes)[0] > 0).cpu().numpy()
            if mask.any():
                proposals.append(Proposal(mask, score, self._names[label]))
        return proposals
