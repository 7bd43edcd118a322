"""Whether an object can be on a frame at all: the network alone finds some mask on blank frames and in other scenes.

A frame without structure shows nothing. On a frame that is much changed (darker, lighter, other) against the last
one that showed an object, a mask that the network itself hardly believes in is none. And on a frame that has nothing in
common with that one (a cut), an object must look as it did: its pixels as near to memory as before, and clearly
segmented.

Where an object was, and on what resembles it a little, the network still finds a mask once the object has left (a
ghost), and believes in it more with every frame that is memorised. But at first it believes in it much less than it did
in the object. So an object is absent when that certainty suddenly falls, until it is what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

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
SUDDEN, CERTAIN, SURE = 0.8, 0.87, 0.95
"""Certainty of a mask, relative to the usual one: mean probability inside it against the background alone, since
similar objects that meet are in each other's way. Below SUDDEN a mask is a ghost. Below CERTAIN it is one if it is
small for the second time, if it is small and there was none before, or if the last one was a ghost; a small one must
then reach SURE. On 11 clips 98 % of the masks of visible objects had 0.9 and more, 75 % of the first ghosts 0.83 and
less."""
SMALL = 0.4
"""Area of a small mask, relative to the object's usual one."""
RELENT = 0.995
"""What is needed of certainty falls by this factor with every frame that was refused, so that no object is lost for
ever: after 60 frames to 0.64, which even a faint mask has. What counts only because of this is usual from then on."""
EDGE = 8
"""A mask without a pixel further than 1/8 of the frame from its border may be an object on its way in or out."""
USUAL = 0.9
"""What remains of the usual certainty and area on a frame that shows the object."""
_MEAN_STD = 0.226  # of the normalisation: brings differences of normalised images back to the scale 0..1


def is_blank(image: Float[Tensor, "1 3 h w"]) -> bool:
    """Does a normalised frame show nothing (one colour, at most with noise)?"""
    cells = F.adaptive_avg_pool2d(image, (64, 64)).flatten(2)
    return bool((cells.amax(2) - cells.amin(2)).max() * _MEAN_STD < BLANK_RANGE)


@dataclass(slots=True)
class _Usual:
    """What one object was like on frames that showed it; 0 = not known yet."""

    distance: float = 0.0
    score: float = 0.0
    area: float = 0.0
    refused: int = 0
    """Masks in a row that were refused, not counting frames without a mask."""
    missing: bool = False
    """The network itself found no mask on the frame after one that showed the object, and only faint ones since."""
    faint: bool = False
    """The last mask that was judged was small and doubtful."""

    def is_ghost(self, score: float, area: float) -> bool:
        """Is a mask of this certainty and area none of the object's? Counts what it refuses."""
        ghost = self._doubts(score, area, RELENT**self.refused * self.score)
        if not ghost and self.refused and self._doubts(score, area, self.score):
            self.score = self.area = 0.0  # it counts only because bounds have fallen: so it looks from here on
        self.refused += ghost
        self.faint = self._is_faint(score, area, self.score)
        return ghost

    def _is_faint(self, score: float, area: float, usual: float) -> bool:
        return area < SMALL * self.area and score < CERTAIN * usual

    def _doubts(self, score: float, area: float, usual: float) -> bool:
        if self.missing:
            return self._is_faint(score, area, usual)
        if self.refused:
            return score < (SURE if area < SMALL * self.area else CERTAIN) * usual
        return score < SUDDEN * usual or (self.faint and self._is_faint(score, area, usual))

    def empty(self) -> None:
        """The network itself finds no mask."""
        self.missing = self.missing or not self.refused

    def shown(self, distance: float, score: float, area: float) -> None:
        """A frame shows the object."""
        self.distance = 0.8 * self.distance + 0.2 * distance if self.distance else distance
        self.score = USUAL * self.score + (1 - USUAL) * score if self.score else score
        self.area = USUAL * self.area + (1 - USUAL) * area if self.area else area
        self.refused, self.missing = 0, False


class Presence:
    """What the objects of one video looked like when they were last seen."""

    def __init__(self) -> None:
        self.thumbnail: Tensor | None = None
        self.usual: dict[int, _Usual] = {}

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
        pixels = masks.sum((1, 2), dtype=torch.float32)
        score, alone = (
            (p * masks).sum((1, 2), dtype=torch.float32) / pixels.clamp(min=1)
            for p in (probabilities[1:], probabilities[1:] / (probabilities[1:] + probabilities[:1]).clamp(min=1e-6))
        )
        last = thumbnail if self.thumbnail is None else self.thumbnail
        parts = [_compare(last, thumbnail), pixels, score, alone, distance, _reaches_inside(masks)]
        difference, correlation, *told = torch.cat(parts).tolist()  # waits for the device once
        changed = difference * _MEAN_STD > CHANGE
        cut = changed and correlation < CORRELATION
        least = MIN_SCORE_AFTER_CUT if cut else MIN_SCORE
        gone, unlike = [], 0
        columns = (told[k * len(ids) : (k + 1) * len(ids)] for k in range(5))
        for row, (i, n, s, certainty, d, inside) in enumerate(zip(ids, *columns, strict=True)):
            usual, area = self.usual.setdefault(i, _Usual()), n / masks[0].numel()
            if (changed and s < least) or (cut and d > MAX_DISTANCE * usual.distance):
                gone.append(row)
                unlike += 1
            elif not n:
                usual.empty()
            elif inside and usual.is_ghost(certainty, area):
                gone.append(row)
            else:
                usual.shown(d, certainty, area)
        if unlike < len(ids):  # ghosts are no change of scene
            self.thumbnail = thumbnail
        return gone

    def prompted(self, image: Float[Tensor, "1 3 h w"], ids: Iterable[int]) -> None:
        """This frame shows objects: the user says so. What they look like from here on is yet to be seen."""
        self.thumbnail = F.adaptive_avg_pool2d(image, (16, 16))
        for i in ids:
            self.usual[i] = _Usual(self.usual.get(i, _Usual()).distance)

    def forget(self, ids: Sequence[int]) -> None:
        """Forget objects."""
        for i in ids:
            self.usual.pop(i, None)

    def state_dict(self) -> State:
        """All state as tensors and scalars."""
        state: State = {f"{name}.{i}": v for i, usual in self.usual.items() for name, v in asdict(usual).items()}
        return state if self.thumbnail is None else state | {"thumbnail": self.thumbnail}

    def load_state_dict(self, state: State, device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave; earlier versions gave the distances alone."""
        thumbnail = state.get("thumbnail")
        self.thumbnail = thumbnail.to(device, copy=True) if isinstance(thumbnail, Tensor) else None
        self.usual = {}
        for key, value in state.items():
            name, _, i = key.partition(".")
            if i:
                usual = self.usual.setdefault(int(i), _Usual())
                setattr(usual, name, type(getattr(usual, name))(value))


def _reaches_inside(masks: Float[Tensor, "N H W"]) -> Float[Tensor, " N"]:
    """1 for a mask with a pixel that is not near the frame's border, else 0."""
    down, right = masks.shape[1] // EDGE, masks.shape[2] // EDGE
    return masks[:, down : masks.shape[1] - down, right : masks.shape[2] - right].amax((1, 2))


def _compare(last: Tensor, now: Tensor) -> Float[Tensor, " 2"]:
    """Mean difference and correlation of two thumbnails."""
    difference = (last - now).abs().mean()
    last, now = (x - x.mean((2, 3), keepdim=True) for x in (last, now))
    return torch.stack([difference, F.cosine_similarity(last.flatten(), now.flatten(), dim=0)])
