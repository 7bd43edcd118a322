"""A conventional feature pyramid in the place of HQ-SAM's global-local fusion (Ke et al. 2023, section 4.2).

Feature Pyramid Networks (Lin et al. 2017): 1x1 lateral connections bring every level to one width, the coarser level is
added after nearest-neighbour upsampling, and a 3x3 convolution smooths each sum. The levels are those that the fusion
has: final and early encoder feature (stride 16), and the mask feature of the decoder (stride 4).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.sam.config import SamConfig


class FeaturePyramid(nn.Module):
    """Three levels of D/8 channels, which is the width of the weights that the HQ token gives."""

    def __init__(self, config: SamConfig) -> None:
        """Built from ``prompt_dim`` D and ``early_channels`` E."""
        super().__init__()
        width = config.prompt_dim // 8
        self.lateral_final = nn.Conv2d(config.prompt_dim, width, 1)
        self.lateral_early = nn.Conv2d(config.early_channels, width, 1)
        self.lateral_mask = nn.Conv2d(width, width, 1)
        self.smooth_early = nn.Conv2d(width, width, 3, padding=1)
        self.smooth_mask = nn.Conv2d(width, width, 3, padding=1)

    def fuse(self, embedding: Float[Tensor, "b d h w"], early: Float[Tensor, "b e h w"]) -> Float[Tensor, "b d8 h4 w4"]:
        """The two encoder levels at the size of the mask feature: the same for all prompts of an image."""
        both = self.smooth_early(self.lateral_early(early) + self.lateral_final(embedding))
        return F.interpolate(both, scale_factor=4.0, mode="nearest")

    def mask(
        self, upscaled: Float[Tensor, "n c h w"], weights: Float[Tensor, "n c"], fused: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n h w"]:
        """Logits <``weights``, pyramid's finest level> of every pixel."""
        finest = self.smooth_mask(self.lateral_mask(upscaled) + fused)
        return torch.matmul(weights[:, None], finest.flatten(2)).squeeze(1).unflatten(1, finest.shape[2:])
