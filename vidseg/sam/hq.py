"""What HQ-SAM adds to the decoder of SAM: an output token, and a fused feature of early and final encoder layers.

Segment Anything in High Quality (Ke et al. 2023), section 3.2. The modules hang in the mask decoder under their
official names, :data:`HQ_PARTS`.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.backbones.layers import LayerNorm2d, Upscaler, cells_to_image
from vidseg.sam.config import SamConfig

HQ_PARTS = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
"""The modules of the mask decoder that HQ-SAM adds to SAM."""


class EarlyStack(nn.Sequential):
    """``compress_vit_feat`` for an early feature at mask resolution (stride 4): two 3x3 convolutions."""

    def __init__(self, dim_in: int, dim_mid: int, dim_out: int) -> None:
        """Children 0, 1 and 3 carry parameters, like the transposed stack of the official networks."""
        super().__init__(
            nn.Conv2d(dim_in, dim_mid, 3, padding=1),
            LayerNorm2d(dim_mid),
            nn.GELU(),
            nn.Conv2d(dim_mid, dim_out, 3, padding=1),
        )


def compress_stack(config: SamConfig) -> Upscaler | EarlyStack:
    """The stack that brings the early encoder feature to D/8 channels at stride 4."""
    dim = config.prompt_dim
    if config.early_stride == 4:
        return EarlyStack(config.early_channels, dim // 4, dim // 8)
    return Upscaler(config.early_channels, dim, dim // 8)


def fuse(
    compress: Upscaler | EarlyStack,
    encoder: Upscaler,
    embedding: Float[Tensor, "b d h w"],
    early: Float[Tensor, "b e eh ew"],
) -> Float[Tensor, "b d8 h4 w4"]:
    """Global-local fusion: the same for all prompts of an image, so it is computed once per frame."""

    def upscale(stack: Upscaler, x: Tensor) -> Tensor:
        return cells_to_image(stack(x.flatten(2).transpose(1, 2)), x.shape[2], x.shape[3])

    detail = upscale(compress, early) if isinstance(compress, Upscaler) else compress(early)
    return upscale(encoder, embedding) + detail


def attend_to_outputs(token: Float[Tensor, "n d"], outputs: Float[Tensor, "n m d"]) -> Float[Tensor, "n d"]:
    """The HQ token plus what it finds among SAM's output tokens by scaled dot products (table 2, "x Output Token").

    Nothing is learned here: softmax(t O^T / sqrt(D)) O is added to t.
    """
    return token + F.scaled_dot_product_attention(token[:, None], outputs, outputs)[:, 0]


class MaskFeature(nn.Sequential):
    """``embedding_maskfeature``: two 3x3 convolutions on the decoder's upscaled feature."""

    def __init__(self, dim: int, wide: bool = False) -> None:
        """``dim`` -> 2 ``dim`` -> ``dim``, LayerNorm2d and GELU between; ``wide``: two residual dilated ones more."""
        super().__init__(
            nn.Conv2d(dim, 2 * dim, 3, padding=1),
            LayerNorm2d(2 * dim),
            nn.GELU(),
            nn.Conv2d(2 * dim, dim, 3, padding=1),
        )
        self.wide = nn.ModuleList(
            nn.Conv2d(2 * dim, 2 * dim, 3, padding=reach, dilation=reach) for reach in ((2, 4) if wide else ())
        )

    def mask(
        self, upscaled: Float[Tensor, "n c h w"], weights: Float[Tensor, "n c"], fused: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n h w"]:
        """Logits <``weights``, feature + ``fused``> of every pixel (equation of the HQ-output token).

        The product with the token is folded into the last convolution, which then has one output channel instead of C:
        9 planes <kernel tap, pixel> are computed per prompt and added with their shifts.
        """
        c, h, w = upscaled.shape[1:]
        first, norm, last = (cast(nn.Conv2d, self[0]), cast(LayerNorm2d, self[1]), cast(nn.Conv2d, self[3]))
        x = F.gelu(norm.last(first(upscaled).permute(0, 2, 3, 1)))
        for conv in self.wide:
            x = x + F.gelu(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        x = x.flatten(1, 2)
        taps = torch.matmul(weights, last.weight.flatten(1)).unflatten(1, (2 * c, 9))
        planes = torch.matmul(taps.transpose(1, 2), x.transpose(1, 2)).unflatten(2, (h, w)).float()
        out = torch.matmul(weights[:, None], fused.flatten(2)).squeeze(1).unflatten(1, (h, w))
        out = out + torch.matmul(weights, cast(Tensor, last.bias))[:, None, None]
        for tap, plane in enumerate(planes.unbind(1)):
            dy, dx = divmod(tap, 3)
            out = out + F.pad(plane, (1 - dx, dx - 1, 1 - dy, dy - 1))
        return out
