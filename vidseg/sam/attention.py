"""What the tokens of the mask decoder attend to in its last token-to-image layer (HQ-SAM, figure 6)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.masks.paste import to_original_size
from vidseg.sam.mask_decoder import NUM_MASKS
from vidseg.sam.model import FrameFeatures, Sam, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Array

_OUTPUT_TOKEN, _HQ_TOKEN = 1, 1 + NUM_MASKS


@torch.no_grad()
def token_attention(
    sam: SegmentAnything, features: FrameFeatures, prompts: PromptBatch
) -> Float[Tensor, "n tokens H W"]:
    """Attention of the output token of the single mask, and of the HQ token where there is one, to every pixel.

    The mean over the heads, brought to the size of the image; the largest value of a map is 1.

    Raises:
        UsageError: a SAM 2, whose decoder is another one.
    """
    if not isinstance(sam, Sam):
        raise UsageError("attention is shown of a SAM or HQ-SAM, not of a SAM 2")
    layer = sam.mask_decoder.transformer.final_attn_token_to_image
    seen: list[tuple[Tensor, Tensor]] = []

    def look(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append((given[0], given[1]))

    handle = layer.register_forward_pre_hook(look)
    try:
        sam.decode([features], [prompts], max_batch=len(prompts))
    finally:
        handle.remove()
    tokens = [_OUTPUT_TOKEN, _HQ_TOKEN] if sam.config.hq else [_OUTPUT_TOKEN]
    asked, image = seen[0]
    q, k = (
        projection(x.to(projection.weight.dtype)).float().unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for projection, x in ((layer.q_proj, asked[:, tokens]), (layer.k_proj, image))
    )
    weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1).mean(1)
    geometry = features.geometry
    maps = weights.unflatten(-1, geometry.grid)
    maps = maps / maps.amax((-1, -2), keepdim=True)
    wide = F.interpolate(maps, geometry.low_res, mode="bilinear", align_corners=False)
    full = to_original_size(wide.flatten(0, 1), *geometry.between, geometry.original)
    return full.clamp(0, 1).unflatten(0, maps.shape[:2])


def heat_over(rgb: Array, attention: npt.NDArray[np.float32]) -> Array:
    """A copy of the image (H, W, 3) with a map (H, W) of 0..1 over it: blue is none, red the most."""
    heat = cv2.applyColorMap((attention * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    return np.asarray(0.5 * rgb + 0.5 * heat).astype(np.uint8)
