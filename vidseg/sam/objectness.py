"""How much a mask looks like a thing, not like a wall, a road or a part: what the encoder saw inside it and around it.

SAM's predicted quality says how good a mask is, not whether anybody would call it an object: roads and skies have
excellent masks, and so has a sleeve. The judge ranks what is found without prompts, and chooses among the candidates
for a click.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.masks.parts import parts_at
from vidseg.sam.geometry import click_grid
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.prompt_batch import PromptBatch

if TYPE_CHECKING:
    from vidseg.sam.geometry import Geometry
    from vidseg.sam.model import FrameFeatures, Masks, SegmentAnything

NOTHING = -1.0
"""Logit of what belongs to a mask but not to the part that was clicked."""
LEAST = 1e-3
"""Predicted qualities (which may be negative) and stabilities below this count as this."""
SHAPE = 7
"""Numbers about a mask alone that follow the 2 D about what the encoder saw."""


class Objectness(nn.Linear):
    """A linear judge of masks: the logit of being an object that people would annotate."""

    def __init__(self, dim: int) -> None:
        """``dim``: channels D of the embedding."""
        super().__init__(2 * dim + SHAPE, 1)

    @torch.no_grad()
    def judge(
        self,
        embedding: Float[Tensor, "d gh gw"],
        logits: Float[Tensor, "k h w"],
        iou: Float[Tensor, " k"],
        stability: Float[Tensor, " k"],
    ) -> Float[Tensor, " k"]:
        """Logits for K masks, float32 on the device of the weights; see :func:`describe_masks`."""
        embedding, logits, iou, stability = (t.to(self.weight.device) for t in (embedding, logits, iou, stability))
        described = describe_masks(embedding, logits, iou, stability)
        return F.linear(described, self.weight.float(), self.bias.float())[:, 0]


def describe_masks(
    embedding: Float[Tensor, "d gh gw"],
    logits: Float[Tensor, "k h w"],
    iou: Float[Tensor, " k"],
    stability: Float[Tensor, " k"],
) -> Float[Tensor, "k f"]:
    """2 D + :data:`SHAPE` numbers for each of K masks, whose low-resolution logits show the frame without padding.

    The mean embedding of the cells inside, and that minus the mean in a ring of two cells around; then predicted
    quality, stability, logarithm of the area (share of the frame), height and width of the box, the share of it that is
    filled, and the share of the frame's border that is covered.
    """
    masks = (logits > 0).float()
    rows, columns = -(-masks.shape[1] // 4), -(-masks.shape[2] // 4)
    padded = F.pad(masks, (0, 4 * columns - masks.shape[2], 0, 4 * rows - masks.shape[1]))
    inside = F.avg_pool2d(padded[:, None], 4)[:, 0]
    around = F.max_pool2d(inside[:, None], 5, stride=1, padding=2)[:, 0] * (1 - inside)
    cells = embedding[:, :rows, :columns].float().flatten(1).T
    within, beside = (
        weights.flatten(1) @ cells / weights.flatten(1).sum(1, keepdim=True).clamp(min=1e-3)
        for weights in (inside, around)
    )
    area = masks.mean((1, 2))
    high, wide = masks.amax(2).mean(1), masks.amax(1).mean(1)
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, 1:-1, 0], masks[:, 1:-1, -1]], dim=1).mean(1)
    filled = area / (high * wide).clamp(min=1e-4)
    shape = [iou.float(), stability.float(), area.clamp(min=1e-4).log(), high, wide, filled, rim]
    return torch.cat([within, within - beside, torch.stack(shape, dim=1)], dim=1)


@torch.no_grad()
def object_chance(
    judge: Objectness | None,
    features: FrameFeatures,
    answer: Masks,
    prompts: PromptBatch,
    stability: Float[Tensor, "n m"] | None = None,
) -> Float[Tensor, "n m"]:
    """The chance (0..1) that each mask is an object as people see it, on the CPU; 1 where there is no ``judge``.

    Of masks for clicks the parts under the clicks on the object count, or the whole masks where these hit nothing.
    ``stability``: that of the masks without padding, where it is known.
    """
    if judge is None:
        return torch.ones(answer.iou.shape)
    logits = _without_padding(answer, features)
    if stability is None:
        stability = stability_score(logits)
    if prompts.points is not None and prompts.labels is not None:
        own = [points[labels == 1] for points, labels in zip(prompts.points, prompts.labels, strict=True)]
        logits = logits.cpu()
        parts, hit = _parts_under(logits, [points.double().cpu().numpy() for points in own], features.geometry)
        logits = torch.where(parts | ~hit[..., None, None], logits, logits.clamp(max=NOTHING))
    judged = judge.judge(features.embedding, logits.flatten(0, 1), answer.iou.flatten(), stability.flatten())
    return judged.sigmoid().cpu().unflatten(0, answer.iou.shape)


@torch.no_grad()
def pick_best(judge: Objectness, features: FrameFeatures, answer: Masks, prompts: PromptBatch) -> Masks:
    """Of the candidates for each prompt the one of the largest :func:`promise`."""
    stability = stability_score(_without_padding(answer, features))
    chance = object_chance(judge, features, answer, prompts, stability)
    best = promise(answer.iou.cpu(), stability.cpu(), chance).argmax(1).to(answer.iou.device)
    row = torch.arange(len(best), device=best.device)
    same = None if answer.hq_iou is None else answer.hq_iou[row, best][:, None]
    return replace(answer, logits=answer.logits[row, best][:, None], iou=answer.iou[row, best][:, None], hq_iou=same)


def promise(quality: Tensor, stability: Tensor, chance: Tensor) -> Tensor:
    """What candidates for a prompt are compared by.

    Predicted quality times stability (Segment Anything, appendix B) says how good a mask is, the root of the
    :func:`object_chance` whether it is what was meant: the person, not a sleeve.
    """
    return quality.clamp(min=LEAST) * stability.clamp(min=LEAST) * chance.sqrt()


def _without_padding(answer: Masks, features: FrameFeatures) -> Float[Tensor, "n m h w"]:
    rows, columns = features.geometry.low_res_frame
    return answer.logits[..., :rows, :columns]


def _parts_under(
    logits: Float[Tensor, "n m h w"], clicks: Sequence[npt.NDArray[np.float64]], geometry: Geometry
) -> tuple[Bool[Tensor, "n m h w"], Bool[Tensor, "n m"]]:
    """Of each mask the parts under its prompt's clicks, in pixels of the original image, and whether there are any."""
    columns_rows = np.array(logits.shape[:1:-1])
    scale = columns_rows / np.array(geometry.original[::-1])
    parts = np.zeros(logits.shape, np.bool_)
    for row, places in enumerate(clicks):
        cells = [tuple(xy) for xy in np.clip((places * scale).astype(int), 0, columns_rows - 1).tolist()]
        for column, mask in enumerate(logits[row].numpy() > 0):
            parts[row, column] = parts_at(mask, cells)
    found = torch.from_numpy(parts)
    return found, found.any(-1).any(-1)


class ClickMasks(NamedTuple):
    """Candidates of a grid of clicks: the part of each mask that its click hit.

    ``logits`` are at the decoder's low resolution and show the frame without padding.
    """

    logits: Float[Tensor, "k h w"]
    iou: Float[Tensor, " k"]
    stability: Float[Tensor, " k"]


@torch.no_grad()
def click_masks(sam: SegmentAnything, features: FrameFeatures, points_per_side: int) -> ClickMasks:
    """All three candidates of every click that hit what they show, drawn by SAM's own part alone; on the CPU.

    The HQ part would take twice the time, and what is chosen is drawn again. Stability is measured as that of both
    parts together, whose logits are twice as large.
    """
    clicks = click_grid(points_per_side) * features.geometry.original[::-1]
    prompts = PromptBatch(points=clicks[:, None], labels=np.ones((len(clicks), 1), np.int64))
    (answer,) = sam.decode([features], [prompts], output="sam", candidates="all")
    logits = _without_padding(answer, features)
    offset = 1.0 if sam.config.output == "sam" else 0.5
    stability, logits = stability_score(logits, offset).cpu(), logits.cpu()
    parts, hit = _parts_under(logits, list(clicks[:, None]), features.geometry)
    logits = torch.where(parts, logits, logits.clamp(max=NOTHING))
    return ClickMasks(logits[hit], answer.iou.cpu()[hit], stability[hit])
