"""What is minimised: plain SAM on mixed prompts, and the HQ mask of a frozen SAM."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.sam.model import Sam
from vidseg.sam2.model import Sam2
from vidseg.training.batches import Batch
from vidseg.training.losses import bce, dice, sample_points, soft_boundary_band, uncertain_points
from vidseg.training.network import decode_batch, encode_images, mask_answers
from vidseg.training.simulated_prompts import LOGIT_BOUND


def _mean_iou_target(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of the masks ``logits`` (N, M, h, w) > 0 with the reduced ``targets`` (N, 1, H, W) -> (N, M)."""
    wanted = F.adaptive_avg_pool2d(targets, (logits.shape[-2], logits.shape[-1])) > 0.5
    found = logits > 0
    union = (wanted | found).flatten(2).sum(-1)
    return (wanted & found).flatten(2).sum(-1) / union.clamp(min=1)


def sam_loss(
    logits: Tensor, iou: Tensor, targets: Tensor, points: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Losses of the four masks of SAM (Segment Anything, section 3 "Resolving ambiguity" and appendix A).

    ``logits`` (N, 4, h, w) against ``targets`` (N, 1, H, W). Mask 0 always learns; of the masks 1 to 3 the best one
    does, and all four qualities ``iou`` (N, 4) learn the IoU by squared error.
    """
    where = uncertain_points(logits[:, :1].detach(), points, generator)
    predicted = sample_points(logits, where)
    wanted = sample_points(targets, where).expand_as(predicted)
    each = bce(predicted, wanted) + dice(predicted, wanted)
    single, multi = each[:, 0].mean(), each[:, 1:].min(dim=1).values.mean()
    quality = F.mse_loss(iou, _mean_iou_target(logits.detach(), targets))
    return {"loss": single + 0.6 * multi + quality, "single": single, "multi": multi, "quality": quality}


def _sam_answers(sam: Sam, embedding: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    result = decode_batch(sam, embedding, None, batch)
    assert result.sam is not None  # all four masks are asked for
    return result.sam.float(), result.iou.float()


def base_loss(sam: Sam, batch: Batch, points: int, again: bool, generator: torch.Generator) -> dict[str, Tensor]:
    """Plain SAM on a batch; with ``again`` a second round in which its own first answer is the mask prompt."""
    embedding, _ = encode_images(sam, batch.images)
    logits, iou = _sam_answers(sam, embedding, batch)
    parts = sam_loss(logits, iou, batch.targets, points, generator)
    if not again:
        return parts
    answer = logits[:, :1].detach().clamp(-LOGIT_BOUND, LOGIT_BOUND)
    asked = replace(batch, logits=answer, has_mask=torch.ones_like(batch.has_mask))
    more = sam_loss(*_sam_answers(sam, embedding, asked), batch.targets, points, generator)
    return {**parts, "loss": (parts["loss"] + more["loss"]) / 2, "second": more["single"]}


def mask_loss(
    sam: Sam | Sam2, batch: Batch, points: int, generator: torch.Generator, boundary_only: bool = False
) -> dict[str, Tensor]:
    """The HQ mask alone against the target (the official recipe), or the single mask of a SAM without the HQ branch.

    With ``boundary_only`` points count only where they lie within 1 % of the image side of the outline.
    """
    logits = mask_answers(sam, batch)
    where = uncertain_points(logits.detach(), points, generator)
    predicted, wanted = sample_points(logits, where)[:, 0], sample_points(batch.targets, where)[:, 0]
    near = None
    if boundary_only:
        width = max(1, batch.targets.shape[-1] // 100)
        near = sample_points(soft_boundary_band((batch.targets > 0.5).float(), width), where)[:, 0]
    cross, overlap = bce(predicted, wanted, near).mean(), dice(predicted, wanted, near).mean()
    return {"loss": cross + overlap, "bce": cross, "dice": overlap}


def whole_loss(
    sam: Sam, batch: Batch, points: int, again: bool, generator: torch.Generator, quality: float = 1.0
) -> dict[str, Tensor]:
    """SAM's own loss and the HQ mask's together, with gradients through everything; HQ learns from fine masks only.

    With ``again`` a second round whose mask prompts are answers of the first: the HQ mask or the best of the three.
    ``quality`` is the weight of the predicted qualities.
    """
    embedding, early = encode_images(sam, batch.images)
    parts, answer = _whole_round(sam, embedding, early, batch, points, generator, quality)
    if not again:
        return parts
    asked = replace(batch, logits=answer.clamp(-LOGIT_BOUND, LOGIT_BOUND), has_mask=torch.ones_like(batch.has_mask))
    more, _ = _whole_round(sam, embedding, early, asked, points, generator, quality)
    return {**parts, "loss": (parts["loss"] + more["loss"]) / 2, "second": more["hq"]}


def _whole_round(
    sam: Sam,
    embedding: Tensor,
    early: Tensor,
    batch: Batch,
    points: int,
    generator: torch.Generator,
    quality: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of one round, and an answer (N, 1, h, w) per prompt that may be the next round's mask prompt."""
    result = decode_batch(sam, embedding, early, batch)
    assert result.sam is not None and result.hq is not None  # both are asked for
    candidates, refined = result.sam.float(), result.hq.float()[:, None]
    parts = sam_loss(candidates, result.iou.float(), batch.targets, points, generator)
    where = uncertain_points(refined.detach(), points, generator)
    predicted, wanted = sample_points(refined, where)[:, 0], sample_points(batch.targets, where)[:, 0]
    each = (bce(predicted, wanted) + dice(predicted, wanted)) * batch.fine
    parts["hq"] = each.sum() / batch.fine.sum().clamp(min=1)
    parts["loss"] = parts["loss"] + parts["hq"] + (quality - 1) * parts["quality"]
    with torch.no_grad():
        best = 1 + _mean_iou_target(candidates[:, 1:], batch.targets).argmax(1)
        chosen = candidates[torch.arange(len(best), device=best.device), best][:, None]
        take = torch.rand(len(best), generator=generator, device=generator.device).to(best.device) < 0.5
        answer = torch.where(take[:, None, None, None], chosen, refined)
    return parts, answer.detach()
