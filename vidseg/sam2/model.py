"""SAM 2 as one object: encode images once, answer any number of prompts on them; the networks of its video memory.

The networks alone: what is remembered between frames, and when, is the business of the ``sam2`` tracker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.layers import Mlp
from vidseg.compiling import Compiled
from vidseg.errors import UsageError
from vidseg.sam2 import preprocess
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.decoder import DecoderOutput, Sam2MaskDecoder, Sam2PromptEncoder, as_points
from vidseg.sam2.memory import MemoryAttention, MemoryEncoder
from vidseg.sam2.neck import ImageEncoder, sine_positions
from vidseg.types import ShapeRepr

LOGIT_LIMIT = 32.0
"""Low-resolution logits are clipped to it before they become a prompt again."""


@dataclass(frozen=True, slots=True, repr=False)
class Sam2Features(ShapeRepr):
    """One encoded image (in training B of one size). ``size`` is its original (height, width)."""

    input: Float[Tensor, "B 3 S S"]
    fpn: tuple[Tensor, Tensor, Tensor]
    """Levels (B, D, h, w) at strides 4, 8 and 16."""
    embedding: Float[Tensor, "B D g g"]
    """The last level plus ``no_mem_embed``: what images without memory are decoded from."""
    high_res: tuple[Tensor, Tensor]
    """Projections of the first two levels for the mask decoder."""
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, repr=False)
class Sam2Prediction(ShapeRepr):
    """M masks for each of N prompts. The object score (a logit, > 0: it is there) is not applied to the masks."""

    logits: Float[Tensor, "N M H W"]
    """At the size of the image."""
    low: Float[Tensor, "N M h w"]
    """At a quarter of the input's size, clipped to +-32: can be given as ``mask`` again."""
    iou: Float[Tensor, "N K"]
    object_score: Float[Tensor, "N 1"]


class Sam2(nn.Module):
    """The network of one :class:`Sam2Config`; parameters have the official names."""

    def __init__(self, config: Sam2Config | None = None) -> None:
        super().__init__()
        config = config or Sam2Config()
        dim, memory = config.dim, config.memory_dim
        self.config = config
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_maskmem, 1, 1, memory))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        if config.occlusion:
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory))
        self.image_encoder = ImageEncoder(config)
        self.compiled: Compiled | None = None
        self.mask_downsample = nn.Conv2d(1, 1, 4, 4)
        self.memory_attention = MemoryAttention(config)
        self.memory_encoder = MemoryEncoder(config)
        self.sam_prompt_encoder = Sam2PromptEncoder(config)
        self.sam_mask_decoder = Sam2MaskDecoder(config)
        self.obj_ptr_proj = Mlp((dim, dim, dim, dim))
        if config.pointer_positions:
            self.obj_ptr_tpos_proj = nn.Linear(dim, memory)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.no_mem_embed.device

    @torch.inference_mode()
    def encode_image(self, rgb: npt.NDArray[np.uint8]) -> Sam2Features:
        """Encode an image (H, W, 3), uint8 RGB, as the image predictor does."""
        x = preprocess.image(rgb, self.config.image_size, self.device)
        return self.encode(x[None], (rgb.shape[0], rgb.shape[1]))

    @torch.inference_mode()
    def encode_frame(self, rgb: npt.NDArray[np.uint8]) -> Sam2Features:
        """Encode a video frame (H, W, 3), uint8 RGB, as the video predictor does."""
        x = preprocess.video(rgb, self.config.image_size, self.device)
        return self.encode(x[None], (rgb.shape[0], rgb.shape[1]))

    def encode(self, x: Float[Tensor, "B 3 S S"], size: tuple[int, int]) -> Sam2Features:
        """Encode normalised squares; ``size`` is the original (height, width)."""
        f0, f1, f2 = (self.compiled or self.image_encoder)(x.to(self.no_mem_embed.dtype))
        decoder = self.sam_mask_decoder
        embedding = f2 + self.no_mem_embed.reshape(1, -1, 1, 1)
        return Sam2Features(x, (f0, f1, f2), embedding, (decoder.conv_s0(f0), decoder.conv_s1(f1)), size)

    @torch.inference_mode()
    def predict(
        self,
        features: Sam2Features,
        *,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | Tensor | None = None,
        multimask: bool = True,
        dynamic_multimask: bool | None = None,
        hq_only: bool = False,
    ) -> Sam2Prediction:
        """Masks for one prompt or for N prompts of one kind, as the image predictor gives them.

        Args:
            features: the image.
            points: (P, 2) or (N, P, 2), pixels (x, y) of the image.
            labels: (P,) or (N, P): 1 object, 0 background, -1 no point.
            box: (4,) or (N, 4): x1, y1, x2, y2.
            mask: low-resolution logits (S/4, S/4), with leading axes (1,), (N, 1) or none.
            multimask: three candidates instead of one mask.
            dynamic_multimask: an unstable single mask gives way to the best candidate; None: as configured.
            hq_only: HQ-SAM 2: the HQ mask alone instead of its sum with SAM's.

        Raises:
            UsageError: points without labels, other shapes, numbers of prompts that do not agree, or ``hq_only``
                without an HQ token.
        """
        if hq_only and not self.config.hq:
            raise UsageError("hq_only: this SAM 2 network has no HQ token (HQ-SAM 2 has)")
        clicks = self._clicks(features, points, labels, box)
        low = None if mask is None else self._mask_logits(mask)
        counts = {len(part) for part in (clicks[0] if clicks else None, low) if part is not None} or {1}
        if len(counts) > 1:
            raise UsageError(f"prompts for {' and '.join(map(str, sorted(counts)))} objects: one number is expected")
        output = self.decode(features.embedding, features.high_res, clicks, low)
        dynamic = self.config.dynamic_multimask if dynamic_multimask is None else dynamic_multimask
        chosen = self.sam_mask_decoder.select(output, multimask=multimask, dynamic=dynamic, hq_only=hq_only)
        logits = preprocess.upsample(chosen.masks, features.size)
        return Sam2Prediction(logits, chosen.masks.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), chosen.iou, output.object_score)

    def decode(
        self,
        embedding: Float[Tensor, "B D g g"],
        high_res: tuple[Tensor, Tensor],
        clicks: tuple[Tensor, Tensor] | None,
        mask: Float[Tensor, "N 1 h w"] | None,
    ) -> DecoderOutput:
        """Everything the decoder says of N prompts.

        Args:
            embedding: what is decoded, for all prompts (B = 1) or for each: the image's own or a conditioned one.
            high_res: those of the image.
            clicks: points (N, P, 2) in pixels of the square input, corners of boxes among them, and labels (N, P).
            mask: low-resolution logits.
        """
        encoder = self.sam_prompt_encoder
        n = 1 if mask is None else len(mask)
        tokens = encoder.points(*clicks) if clicks else embedding.new_zeros(n, 0, self.config.dim)
        dense = encoder.dense(None if mask is None else mask.to(embedding.dtype))
        return cast(DecoderOutput, self.sam_mask_decoder(embedding, self.dense_pe(), tokens, dense, high_res))

    def dense_pe(self) -> Float[Tensor, "1 gg D"]:
        """The code of the cells of the embedding."""
        return self.sam_prompt_encoder.dense_pe(self.config.grid, self.config.grid)

    def positions(self, dim: int) -> Float[Tensor, "1 dim g g"]:
        """Sine positions of the cells of the embedding."""
        return sine_positions(self.config.grid, self.config.grid, dim, self.device)

    def _clicks(
        self,
        features: Sam2Features,
        points: npt.ArrayLike | None,
        labels: npt.ArrayLike | None,
        box: npt.ArrayLike | None,
    ) -> tuple[Tensor, Tensor] | None:
        if (points is None) != (labels is None):
            raise UsageError("points and labels: one without the other")
        height, width = features.size

        def scaled(values: npt.ArrayLike, shape: Sequence[int], name: str) -> Tensor:
            array = np.asarray(values, np.float32)
            if array.size == 0 or array.size % max(1, -int(np.prod(shape))):
                raise UsageError(f"{name} of shape {array.shape}: pairs (x, y) are expected")
            return preprocess.scaled(array.reshape(shape), width, height, self.config.image_size).to(self.device)

        boxes = None if box is None else scaled(box, (-1, 2, 2), "box").reshape(-1, 4)
        clicks = marks = None
        if points is not None:
            given = np.asarray(points, np.float32)
            clicks = scaled(given, (1, -1, 2) if given.ndim < 3 else given.shape, "points")
            marks = torch.as_tensor(np.asarray(labels, np.int64)).to(self.device).reshape(-1, clicks.shape[1])
            if len(marks) != len(clicks):
                raise UsageError(f"{len(clicks)} x {clicks.shape[1]} points, but {np.size(cast(Any, labels))} labels")
        if boxes is not None and clicks is not None and len(boxes) != len(clicks):
            raise UsageError(f"{len(boxes)} boxes and points for {len(clicks)} objects: one number is expected")
        return as_points(clicks, marks, boxes)

    def _mask_logits(self, mask: npt.ArrayLike | Tensor) -> Tensor:
        side = self.config.image_size // 4
        logits = torch.as_tensor(mask, dtype=torch.float32).to(self.device)
        if logits.ndim < 2 or tuple(logits.shape[-2:]) != (side, side):
            raise UsageError(f"mask prompt of shape {tuple(logits.shape)}: logits ({side}, {side}) are expected")
        return logits.reshape(-1, 1, side, side).to(self.no_mem_embed.dtype)
