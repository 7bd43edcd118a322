"""The whole network: backbone, pixel decoder, transformer decoder, with the official names of all parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.resnet import ResNet
from vidseg.backbones.swin import Swin, SwinConfig
from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.pixel_decoder import PixelDecoder
from vidseg_trackers.mask2former.transformer_decoder import Queries, TransformerDecoder

STRIDE = 32
"""Height and width of the input must be multiples of this."""


class ClipFeatures(NamedTuple):
    """T encoded frames, float32: maps (T, C, h, w) at 1/32, 1/16, 1/8 and mask features (T, C, h, w) at 1/4."""

    maps: tuple[Tensor, Tensor, Tensor]
    mask_features: Tensor


class Head(nn.Module):
    """Pixel decoder and transformer decoder, under their official names."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(config)
        self.predictor = TransformerDecoder(config)


class Mask2Former(nn.Module):
    """Two steps: :meth:`encode` works on single frames, :meth:`decode` on all frames of a clip together.

    Under autocast the pixel decoder stays in float32, as in the official code.
    """

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.backbone = Swin(backbone) if isinstance(backbone, SwinConfig) else ResNet(backbone)
        self.sem_seg_head = Head(config)

    def encode(self, images: Float[Tensor, "T 3 H W"]) -> ClipFeatures:
        """Normalised frames, zero-padded at the right and bottom to multiples of 32."""
        features = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            maps, mask_features = self.sem_seg_head.pixel_decoder([f.float() for f in features])
        return ClipFeatures(tuple(maps), mask_features)

    def decode(self, features: ClipFeatures) -> Queries:
        """What the queries find in the clip; the result depends on all its frames."""
        return self.sem_seg_head.predictor(features.maps, features.mask_features)


def mask_logits(
    mask_embeddings: Float[Tensor, "Q C"], mask_features: Float[Tensor, "T C h w"]
) -> Float[Tensor, "Q T h w"]:
    """Mask logits of queries at 1/4 of the padded input."""
    return torch.einsum("qc,tchw->qthw", mask_embeddings, mask_features)
