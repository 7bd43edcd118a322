"""Whether an object can be on a frame at all: the network alone finds some mask on blank frames and in other scenes.

A frame without structure shows nothing. On a frame that is much changed (darker, lighter, other) against the last
one that showed an object, a mask that the network itself hardly believes in is none. And on a frame that has nothing in
common with that one (a cut), an object must look as it did: its pixels as near to memory as before, and clearly
segmented. As long as a video changes gradually, nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidseg.types import State
from vidseg_trackers.mask_tracking.label_map import wins

BLANK_RANGE = 0.04
"""Largest difference (0..1) between the cells of a 64x64 thumbnail of a blank frame; sensor noise stays below it."""
CHANGE, CORRELATION = 0.12, 0.5
"""A changed frame: 16x16 thumbnails differ by more (mean, 0..1). A cut: they also correlate less. Successive frames of
31 clips never changed so much; 95 % of the pairs of frames of two clips were cuts."""
MIN_SCORE = 0.6
"""Least mean probability inside a mask on a changed frame. Visible objects had 0.67 and more, also blurred or dim."""
MAX_DISTANCE, MIN_SCORE_AFTER_CUT = 1.1, 0.8
"""After a cut: distance of the object's pixels from memory, relative to before, and the mean probability."""
_MEAN_STD = 0.226  # of the normalisation: brings differences of normalised images back to the scale 0..1


def is_blank(image: Float[Tensor, "1 3 h w"]) -> bool:
    """Does a normalised frame show nothing (one colour, at most with noise)?"""
    cells = F.adaptive_avg_pool2d(image, (64, 64)).flatten(2)
    return bool((cells.amax(2) - cells.amin(2)).max() * _MEAN_STD < BLANK_RANGE)


class Presence:
    """What the objects of one video looked like when they were last seen."""

    def __init__(self) -> None:
        self.thumbnail: Tensor | None = None
        self.distances: dict[int, float] = {}

    def absent(
        self,
        image: Float[Tensor, "1 3 h w"],
        probabilities: Float[Tensor, "N1 H W"],
        nearest: Float[Tensor, "N h16 w16"],
        ids: Sequence[int],
    ) -> list[int]:
        """Rows (0 = first object) of the objects that cannot be on this frame.

        Args:
            image: normalised, not padded.
            probabilities: background first, padded.
            nearest: similarity (<= 0) of every pixel at 1/16 to the nearest memory element.
            ids: of the objects.
        """
        thumbnail = F.adaptive_avg_pool2d(image, (16, 16))
        masks = torch.stack([wins(probabilities, row) for row in range(1, len(ids) + 1)])
        share = F.adaptive_avg_pool2d(probabilities[1:], (nearest.shape[1], nearest.shape[2]))
        distance = -(nearest * share).sum((1, 2)) / share.sum((1, 2)).clamp(min=1e-6)
        score = (probabilities[1:] * masks).sum((1, 2)) / masks.sum((1, 2)).clamp(min=1)
        last = thumbnail if self.thumbnail is None else self.thumbnail
        parts = [_compare(last, thumbnail), masks.flatten(1).any(1), score, distance]
        difference, correlation, *told = torch.cat(parts).tolist()  # waits for the device once
        changed = difference * _MEAN_STD > CHANGE
        cut = changed and correlation < CORRELATION
        least = MIN_SCORE_AFTER_CUT if cut else MIN_SCORE
        gone = []
        found, scores, distances = (told[k * len(ids) : (k + 1) * len(ids)] for k in range(3))
        for row, (i, s, d) in enumerate(zip(ids, scores, distances, strict=True)):
            usual = self.distances.get(i, 0.0)
            if (changed and s < least) or (cut and d > MAX_DISTANCE * usual):
                gone.append(row)
            elif found[row]:
                self.distances[i] = 0.8 * usual + 0.2 * d if usual else d
        if len(gone) < len(ids):
            self.thumbnail = thumbnail
        return gone

    def prompted(self, image: Float[Tensor, "1 3 h w"]) -> None:
        """This frame shows objects: the user says so."""
        self.thumbnail = F.adaptive_avg_pool2d(image, (16, 16))

    def forget(self, ids: Sequence[int]) -> None:
        """Forget objects."""
        for i in ids:
            self.distances.pop(i, None)

    def state_dict(self) -> State:
        """All state as tensors."""
        state: State = {f"distance.{i}": d for i, d in self.distances.items()}
        return state if self.thumbnail is None else state | {"thumbnail": self.thumbnail}

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        thumbnail = state.get("thumbnail")
        self.thumbnail = thumbnail.to(device, copy=True) if isinstance(thumbnail, Tensor) else None
        self.distances = {int(k.removeprefix("distance.")): float(v) for k, v in state.items() if k != "thumbnail"}


def _compare(last: Tensor, now: Tensor) -> Float[Tensor, " 2"]:
    """Mean difference and correlation of two thumbnails."""
    difference = (last - now).abs().mean()
    last, now = (x - x.mean((2, 3), keepdim=True) for x in (last, now))
    return torch.stack([difference, F.cosine_similarity(last.flatten(), now.flatten(), dim=0)])
