"""Images and masks on their way into SAM 2, and logits on their way out.

The published image predictor resizes with averaging in float, the video predictor with Pillow's bicubic filter in
bytes; both squash to a square. Results of the two differ visibly, so each has its function.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.runtime import send

MASK_LOGIT = 10.0
"""Logit of a pixel inside a mask that was given; outside it is the negative."""


class MaskPrompt(NamedTuple):
    """A given mask at the size of the input, 0 or 1 (1, 1, S, S), and its low-resolution logits (1, 1, S/4, S/4)."""

    mask: Tensor
    low: Tensor


def image(rgb: npt.NDArray[np.uint8], size: int = 1024, device: torch.device | str = "cpu") -> Float[Tensor, "3 S S"]:
    """An image (H, W, 3), uint8 RGB, as the image predictor sees it."""
    x = send(torch.from_numpy(np.ascontiguousarray(rgb)), device).permute(2, 0, 1).float() / 255
    x = F.interpolate(x[None], (size, size), mode="bilinear", align_corners=False, antialias=True)[0]
    return normalised(x)


def video(rgb: npt.NDArray[np.uint8], size: int = 1024, device: torch.device | str = "cpu") -> Float[Tensor, "3 S S"]:
    """A frame (H, W, 3), uint8 RGB, as the video predictor sees it."""
    picture = Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC)
    return normalised(send(torch.from_numpy(np.array(picture)), device).permute(2, 0, 1).float() / 255)


def mask_prompt(mask: npt.ArrayLike | Tensor, size: int = 1024, device: torch.device | str = "cpu") -> MaskPrompt:
    """A mask (H, W), anything but 0 is object, as the video predictor takes it."""
    inside = torch.as_tensor(np.asarray(mask) != 0).to(device)[None, None].float()
    if inside.shape[-2:] != (size, size):
        resized = F.interpolate(inside, (size, size), mode="bilinear", align_corners=False, antialias=True)
        inside = (resized >= 0.5).float()
    logits = inside * (2 * MASK_LOGIT) - MASK_LOGIT
    low = F.interpolate(logits, (size // 4, size // 4), mode="bilinear", align_corners=False, antialias=True)
    return MaskPrompt(inside, low)


def upsample(logits: Float[Tensor, "*n h w"] | npt.NDArray[Any], size: tuple[int, int]) -> Float[Tensor, "*n H W"]:
    """Logits at the size (height, width) of the image: bilinear, corners not aligned."""
    x = torch.as_tensor(logits)
    flat = x.reshape(-1, 1, *x.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear", align_corners=False).reshape(*x.shape[:-2], *size)


def scaled(xy: npt.ArrayLike, width: int, height: int, size: int) -> Float[Tensor, "*n 2"]:
    """Points (x, y) in pixels of the image -> pixels of the square input, float32."""
    points = torch.as_tensor(np.asarray(xy, np.float32))
    return points / torch.tensor([width, height], dtype=torch.float32) * size


def normalised(x: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """Grey levels in 0..1 without the mean and with the spread of ImageNet."""
    mean, std = (send(torch.tensor(v), x.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std
