"""From frames and masks of a video to the network's input, and back.

The shorter side becomes ``size``, the longer one ``int(size * long / short)``; then ImageNet normalisation; then zeros
on all sides up to multiples of 16, the odd pixel right and at the bottom (XMem's evaluation code). Frames longer than
4:1, which the rule would enlarge without bound, get at most the area of a 16:9 frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.runtime import send

_STRIDE = 16
_LONGEST = 4  # longest ordinary aspect: cinema has 2.4:1, two screens side by side 3.6:1


@dataclass(frozen=True, slots=True)
class InnerGeometry:
    """Sizes (height, width) of the video's frames, of the network's view of them, and its padding left and top."""

    original: tuple[int, int]
    inner: tuple[int, int]
    top: int
    left: int
    padded: tuple[int, int]

    @classmethod
    def of(cls, original: tuple[int, int], size: int) -> InnerGeometry:
        """For frames of ``original`` (height, width) with the shorter side resized to ``size``; -1 = not resized."""
        height, width = original if size == -1 else _inner_size(original, size)
        padded = (_round_up(height), _round_up(width))
        return cls(original, (height, width), (padded[0] - height) // 2, (padded[1] - width) // 2, padded)

    def pad(self, x: Float[Tensor, "*c h w"]) -> Float[Tensor, "*c H W"]:
        """Zeros around the inner image."""
        bottom, right = self.padded[0] - self.inner[0] - self.top, self.padded[1] - self.inner[1] - self.left
        return F.pad(x, (self.left, right, self.top, bottom)) if self.padded != self.inner else x

    def unpad(self, x: Float[Tensor, "*c H W"]) -> Float[Tensor, "*c h w"]:
        """The inner image."""
        return x[..., self.top : self.top + self.inner[0], self.left : self.left + self.inner[1]]


def _round_up(side: int) -> int:
    return -(-side // _STRIDE) * _STRIDE


def _inner_size(original: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) with ``size`` as the shorter side; less for long frames, so that time and memory are bounded."""
    short = min(original)
    if max(original) <= _LONGEST * short:
        return int(size * original[0] / short), int(size * original[1] / short)
    area = _round_up(size) * _round_up(size * 16 // 9)
    for side in range(size, 0, -1):
        height, width = int(side * original[0] / short), int(side * original[1] / short)
        if _round_up(height) * _round_up(width) <= area:
            return height, width
    longest = area // _STRIDE  # thinner than one pixel in proportion
    return min(original[0], longest), min(original[1], longest)


def prepare_frame(
    rgb: npt.NDArray[np.uint8], geometry: InnerGeometry, antialias: bool, device: torch.device
) -> Float[Tensor, "1 3 h w"]:
    """uint8 RGB (H, W, 3) -> normalised float32 at the inner size, channels last, not padded yet.

    Without ``antialias`` the resize works in float32, as the published numbers did. With it, a CPU resizes bytes, which
    is several times faster and rounds every pixel to 1/255.
    """
    image = send(torch.from_numpy(np.ascontiguousarray(rgb)), device).permute(2, 0, 1)[None]
    if geometry.inner != geometry.original:
        if not antialias or device.type != "cpu":
            image = image.float()
        image = F.interpolate(image, geometry.inner, mode="bilinear", align_corners=False, antialias=antialias)
    mean, std = (send(torch.tensor(v), device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return image.float().sub_(mean * 255).mul_(1 / (std * 255)).contiguous(memory_format=torch.channels_last)


def prepare_masks(
    masks: Mapping[int, npt.NDArray[np.bool_]], geometry: InnerGeometry, device: torch.device
) -> dict[int, Float[Tensor, "H W"]]:
    """Bool masks (H, W) by object id -> disjoint 0/1 masks at the padded size, sorted by id.

    Nearest pixel, as the official code; a mask so small that nearest loses it keeps every pixel it touches. Where masks
    overlap the smaller one wins.
    """
    result: dict[int, Tensor] = {}
    taken: Tensor | None = None
    for i in sorted(masks, key=lambda i: (int(masks[i].sum()), i)):
        image = send(torch.from_numpy(np.ascontiguousarray(masks[i])), device)[None, None].float()
        small = F.interpolate(image, geometry.inner, mode="nearest")
        if not small.any():
            small = F.adaptive_max_pool2d(image, geometry.inner)
        if taken is None:
            taken = torch.zeros_like(small)
        result[i] = geometry.pad(small * (1 - taken))[0, 0]
        taken = torch.maximum(taken, small)
    return {i: result[i] for i in sorted(result)}
