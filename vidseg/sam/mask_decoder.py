"""The mask decoder: tokens and an image embedding become mask logits and predicted qualities.

Segment Anything (Kirillov et al. 2023), appendix A, with the HQ branch of Ke et al. 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidseg.backbones.layers import Mlp, Upscaler, cells_to_image
from vidseg.errors import UsageError
from vidseg.sam import hq
from vidseg.sam.config import Output, SamConfig
from vidseg.sam.feature_pyramid import FeaturePyramid
from vidseg.sam.transformer import TwoWayTransformer, spread
from vidseg.types import ShapeRepr

Candidates = Literal["single", "best", "all"]

NUM_MASKS = 4
"""Mask tokens: 0 is the single answer, 1 to 3 are the candidates for an ambiguous prompt."""


@dataclass(frozen=True, slots=True, repr=False)
class DecoderOutput(ShapeRepr):
    """Raw results of N prompts: logits of the requested mask tokens, of the HQ token, and all four qualities."""

    sam: Float[Tensor, "n m h w"] | None
    hq: Float[Tensor, "n h w"] | None
    iou: Float[Tensor, "n 4"]


class MaskDecoder(nn.Module):
    """Two-way transformer, upscaling, one hypernetwork per mask token; with ``config.hq`` also the HQ branch."""

    def __init__(self, config: SamConfig) -> None:
        """Parameter names are those of the official checkpoints."""
        super().__init__()
        dim = config.prompt_dim
        self.transformer = TwoWayTransformer(dim, config.decoder_heads, config.decoder_mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.output_upscaling = Upscaler(dim, dim // 4, dim // 8, last_gelu=True)
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp((dim, dim, dim, dim // 8)) for _ in range(NUM_MASKS))
        self.iou_prediction_head = Mlp((dim, config.iou_hidden_dim, config.iou_hidden_dim, NUM_MASKS))
        self.hq = config.hq
        if config.hq:
            self.hf_token = nn.Embedding(1, dim)
            self.hf_mlp = Mlp((dim, dim, dim, dim // 8))
        self.hq_attends = config.hq_attends
        self.context_tokens = nn.Embedding(config.context_tokens, dim) if config.context_tokens else None
        self.fusion = config.hq and config.hq_fusion
        self.pyramid = FeaturePyramid(config) if self.fusion and config.hq_pyramid else None
        if self.fusion and self.pyramid is None:
            self.compress_vit_feat = hq.compress_stack(config)
            self.embedding_encoder = Upscaler(dim, dim // 4, dim // 8)
            self.embedding_maskfeature = hq.MaskFeature(dim // 8, wide=config.hq_mix)
            self.hq_mix = config.hq_mix

    def fuse(
        self, embedding: Float[Tensor, "b d h w"], early: Float[Tensor, "b e eh ew"]
    ) -> Float[Tensor, "b d8 h4 w4"] | None:
        """The fused HQ feature of images, or None in a network without one. Independent of the prompts."""
        if not self.fusion:
            return None
        if self.pyramid is not None:
            return self.pyramid.fuse(embedding, early)
        return hq.fuse(self.compress_vit_feat, self.embedding_encoder, embedding, early)

    def forward(
        self,
        embedding: Float[Tensor, "f d h w"],
        image_pe: Float[Tensor, "1 hw d"],
        sparse: Float[Tensor, "n t d"],
        dense: Float[Tensor, "m d hm wm"],
        rows: Int[Tensor, " n"],
        fused: Float[Tensor, "f d8 h4 w4"] | None,
        masks: Sequence[int] = (0,),
        want_hq: bool = True,
    ) -> DecoderOutput:
        """Decode N prompts on F images.

        ``rows[i]`` is the image of prompt i. ``dense`` is the constant (1, D, 1, 1) or one map per prompt. ``masks``
        lists the mask tokens whose logits are wanted (may be empty), ``want_hq`` asks for the HQ mask; both are at 4
        times the grid.
        """
        n = sparse.shape[0]
        h, w = embedding.shape[-2:]
        learned = [self.iou_token.weight, self.mask_tokens.weight]
        if self.hq:
            learned.append(self.hf_token.weight)
        if self.context_tokens is not None:
            learned.append(self.context_tokens.weight)
        tokens = torch.cat([torch.cat(learned).expand(n, -1, -1), sparse], dim=1)
        image: Tensor = embedding.flatten(2).transpose(1, 2)
        shared: Tensor | None = rows
        if dense.shape[-2:] != (1, 1):  # one map per prompt: nothing is shared between the prompts of a frame
            image, shared = spread(image, rows), None
        image = image + dense.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, image_pe, tokens, shared)

        iou = self.iou_prediction_head(tokens[:, 0])
        cells = self.output_upscaling(image)  # (N, h*w, 4, 4, D/8)
        sam_logits = hq_logits = None
        if len(masks):
            weights = torch.stack([self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in masks], dim=-1)
            products = torch.matmul(cells.flatten(1, 3), weights)
            sam_logits = cells_to_image(products.unflatten(1, (h * w, 4, 4)), h, w)
        if want_hq:
            if not self.hq or (self.fusion and fused is None):
                raise UsageError("HQ masks asked for, but this network has no HQ branch")
            token = tokens[:, 1 + NUM_MASKS]
            if self.hq_attends:
                token = hq.attend_to_outputs(token, tokens[:, 1 : 1 + NUM_MASKS])
            hq_weights = self.hf_mlp(token)
            if fused is None:
                products = torch.matmul(cells, hq_weights[:, None, None, :, None])
                return DecoderOutput(sam_logits, cells_to_image(products, h, w)[:, 0], iou)
            upscaled = cells_to_image(cells, h, w, channels_last=True)
            details = spread(fused, rows)
            if self.pyramid is not None:
                return DecoderOutput(sam_logits, self.pyramid.mask(upscaled, hq_weights, details), iou)
            if self.hq_mix:
                upscaled = upscaled + details
            hq_logits = self.embedding_maskfeature.mask(upscaled, hq_weights, details)
        return DecoderOutput(sam_logits, hq_logits, iou)


def wanted_masks(output: Output, candidates: Candidates) -> tuple[int, ...]:
    """The mask tokens that a choice of output and candidates needs; for "hq" the one to compare the HQ mask with."""
    if candidates == "single":
        return (0,)
    return () if output == "hq" else (1, 2, 3)


def select_masks(
    result: DecoderOutput, output: Output, candidates: Candidates
) -> tuple[Float[Tensor, "n m h w"], Float[Tensor, "n m"]]:
    """Masks and qualities that are handed out; M = 3 for "all", else 1.

    "sum" adds SAM and HQ logits (the paper's error correction), "hq" and "sam" are one of them alone. "single" takes
    mask token 0, "best" the candidate of highest predicted quality. Qualities always belong to SAM's masks.
    """
    iou = result.iou[:, :1] if candidates == "single" else result.iou[:, 1:]
    sam = None if output == "hq" else result.sam
    if candidates == "best":
        best = iou.argmax(dim=1)
        row = torch.arange(len(best), device=best.device)
        iou = iou[row, best][:, None]
        sam = None if sam is None else sam[row, best][:, None]
    if output == "sam":
        if sam is None:
            raise UsageError("SAM masks were not decoded")
        return sam, iou
    if result.hq is None:
        raise UsageError("HQ masks were not decoded")
    hq_masks = result.hq[:, None].expand(-1, iou.shape[1], -1, -1)
    return (hq_masks if sam is None else sam + hq_masks), iou


def hq_iou(
    result: DecoderOutput, masks: Float[Tensor, "n m h w"], output: Output, candidates: Candidates
) -> Float[Tensor, "n m"] | None:
    """IoU of SAM's own masks and those that :func:`select_masks` gave, 0 where both are empty; None without both."""
    if output == "sam" or result.hq is None or (output == "hq" and candidates != "single"):
        return None
    sam = result.sam if output == "hq" else masks - result.hq[:, None]
    if sam is None:
        return None
    return logits_iou(masks, sam)


def logits_iou(one: Float[Tensor, "*n h w"], other: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n"]:
    """IoU of the masks of two sets of logits; 0 where both are empty."""
    a, b = one > 0, other > 0
    return (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp(min=1)


def stability_score(logits: Float[Tensor, "*n h w"], offset: float = 1.0) -> Float[Tensor, "*n"]:
    """IoU of the masks at thresholds +``offset`` and -``offset``: how little the mask depends on the threshold.

    An empty pair of masks has score 0.
    """
    inner = (logits > offset).flatten(-2).sum(-1, dtype=torch.int32)  # half the time of int64 on a CPU
    outer = (logits > -offset).flatten(-2).sum(-1, dtype=torch.int32)
    return inner / outer.clamp(min=1)
