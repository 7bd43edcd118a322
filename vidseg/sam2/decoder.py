"""Prompt encoder and mask decoder of SAM 2: object score, high-resolution features, the HQ token of HQ-SAM 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import LayerNorm2d, Mlp
from vidseg.sam.mask_decoder import stability_score
from vidseg.sam.prompt_encoder import PromptEncoder
from vidseg.sam.transformer import TwoWayTransformer
from vidseg.sam2.config import Sam2Config
from vidseg.types import ShapeRepr

NUM_MASKS = 4
"""Mask tokens: 0 is the single answer, 1 to 3 are the candidates for an ambiguous prompt."""
BOX_LABELS = (2, 3)
"""Labels of the two corners of a box, which is given as two points before the clicks."""


class Sam2PromptEncoder(PromptEncoder):
    """SAM's prompt encoder, with the corners of a box as points, and always a token for "no more points"."""

    def points(self, points: Float[Tensor, "N P 2"], labels: Int[Tensor, "N P"]) -> Float[Tensor, "N P+1 D"]:
        """Tokens of points in pixels of the square input; labels 0, 1, 2 and 3 (corners of a box), -1 none."""
        points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=-1)
        code = self.pe_layer((points + 0.5) / self.image_size)
        kinds = torch.cat([cast(nn.Embedding, e).weight for e in self.point_embeddings])
        code = code + kinds[labels.clamp(0, 3)]
        return torch.where(labels[..., None] == -1, self.not_a_point_embed.weight, code)

    def dense(self, masks: Float[Tensor, "N 1 h4 w4"] | None) -> Float[Tensor, "N D h w"]:
        """The dense embedding of mask logits, or the constant (1, D, 1, 1)."""
        if masks is None:
            return self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return cast(Tensor, self.mask_downscaling(masks))


@dataclass(frozen=True, slots=True, repr=False)
class DecoderOutput(ShapeRepr):
    """Raw results of N prompts for all four mask tokens: logits, qualities (0..1), tokens; score of the object's
    presence (a logit); the HQ mask (N, 1, h, w) of HQ-SAM 2."""

    masks: Float[Tensor, "N 4 h w"]
    iou: Float[Tensor, "N 4"]
    tokens: Float[Tensor, "N 4 D"]
    object_score: Float[Tensor, "N 1"]
    hq: Float[Tensor, "N 1 h w"] | None


@dataclass(frozen=True, slots=True, repr=False)
class Selection(ShapeRepr):
    """The M answers to every prompt: logits, qualities, and the tokens that they come from."""

    masks: Float[Tensor, "N M h w"]
    iou: Float[Tensor, "N K"]
    tokens: Float[Tensor, "N K D"]


class Sam2MaskDecoder(nn.Module):
    """Two-way transformer, upscaling with the high-resolution features, one hypernetwork per mask token."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.transformer = TwoWayTransformer(dim, 8, 2048, mlp=lambda d, hidden: Mlp((d, hidden, d)))
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, dim // 8, 1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp((dim, dim, dim, dim // 8)) for _ in range(NUM_MASKS))
        self.iou_prediction_head = Mlp((dim, 256, 256, NUM_MASKS))
        self.pred_obj_score_head = Mlp((dim, dim, dim, 1))
        if config.hq:
            self.hf_token = nn.Embedding(1, dim)
            self.hf_mlp = Mlp((dim, dim, dim, dim // 8))
            self.embedding_maskfeature = nn.Sequential(
                nn.Conv2d(dim // 8, dim // 4, 3, 1, 1),
                LayerNorm2d(dim // 4),
                nn.GELU(),
                nn.Conv2d(dim // 4, dim // 8, 3, 1, 1),
            )

    def forward(
        self,
        embedding: Float[Tensor, "B D g g"],
        dense_pe: Float[Tensor, "1 gg D"],
        tokens: Float[Tensor, "N T D"],
        dense: Float[Tensor, "K D h w"],
        high_res: tuple[Tensor, Tensor],
    ) -> DecoderOutput:
        """Answer N prompts; B is 1 (one image for all) or N, and ``dense`` is a row per prompt or a constant."""
        heads = [self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight]
        if self.config.hq:
            heads.append(self.hf_token.weight)
        fixed = torch.cat(heads)
        tokens = torch.cat([fixed.expand(len(tokens), -1, -1), tokens.to(fixed.dtype)], 1)
        image = (embedding + dense).flatten(2).transpose(1, 2)
        shared = len(image) == 1 and len(tokens) > 1
        rows = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device) if shared else None
        out, image = self.transformer(image, dense_pe.to(image.dtype), tokens, rows)
        mask_tokens = out[:, 2 : 2 + NUM_MASKS]
        feature = self._upscaled(image.transpose(1, 2).unflatten(2, embedding.shape[-2:]), high_res)
        weights = [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        hq = None
        if self.config.hq:
            own = self.hf_mlp(out[:, 2 + NUM_MASKS])[:, None]
            hq = _product(own, self.embedding_maskfeature(feature)).float()
        return DecoderOutput(
            _product(torch.stack(weights, 1), feature).float(),
            torch.sigmoid(self.iou_prediction_head(out[:, 1]).float()),
            mask_tokens,
            self.pred_obj_score_head(out[:, 0]).float(),
            hq,
        )

    def _upscaled(self, image: Tensor, high_res: tuple[Tensor, Tensor]) -> Tensor:
        up1, norm, gelu, up2, _ = self.output_upscaling
        s0, s1 = high_res
        return F.gelu(up2(gelu(norm(up1(image) + s1))) + s0)

    def select(self, output: DecoderOutput, *, multimask: bool, dynamic: bool, hq_only: bool = False) -> Selection:
        """The three candidates, or the single answer; with ``dynamic`` an unstable one gives way to the best candidate.

        HQ-SAM 2 adds the HQ mask to what was selected (``hq_only``: it is the only mask, beside all qualities).
        """
        if multimask:
            chosen = Selection(output.masks[:, 1:], output.iou[:, 1:], output.tokens[:, 1:])
        else:
            masks, iou = output.masks[:, :1], output.iou[:, :1]
            if dynamic:
                delta, least = self.config.stability_delta, self.config.stability_threshold
                nothing = ~(masks[:, 0] > -delta).flatten(1).any(1)  # an empty mask counts as stable
                stable = nothing | (stability_score(masks[:, 0], delta) >= least)
                best = output.iou[:, 1:].argmax(1) + 1
                row = torch.arange(len(best), device=best.device)
                masks = torch.where(stable[:, None, None, None], masks, output.masks[row, best][:, None])
                iou = torch.where(stable[:, None], iou, output.iou[row, best][:, None])
            chosen = Selection(masks, iou, output.tokens[:, :1])  # the token stays, whichever mask it is
        if output.hq is None:
            return chosen
        return Selection(output.hq if hq_only else chosen.masks + output.hq, chosen.iou, chosen.tokens)


def _product(weights: Float[Tensor, "N M C"], feature: Float[Tensor, "N C h w"]) -> Float[Tensor, "N M h w"]:
    return (weights @ feature.flatten(2)).unflatten(2, feature.shape[-2:])


def as_points(
    points: Float[Tensor, "N P 2"] | None, labels: Int[Tensor, "N P"] | None, boxes: Float[Tensor, "N 4"] | None
) -> tuple[Float[Tensor, "N Q 2"], Int[Tensor, "N Q"]] | None:
    """Corners of boxes and clicks as one list of points with labels, or None without either."""
    parts: list[tuple[Tensor, Tensor]] = []
    if boxes is not None:
        corners = torch.tensor(BOX_LABELS, device=boxes.device).expand(len(boxes), 2)
        parts.append((boxes.reshape(-1, 2, 2), corners))
    if points is not None and labels is not None:
        parts.append((points, labels))
    if not parts:
        return None
    return torch.cat([p for p, _ in parts], 1), torch.cat([label for _, label in parts], 1)
