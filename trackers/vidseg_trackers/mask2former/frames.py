"""Frames in and masks out: the official resizing, normalising and padding, and the way back to the video's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vidseg.backbones.imagenet import BYTE_MEAN, BYTE_STD
from vidseg.masks.paste import to_original_size
from vidseg_trackers.mask2former.network import STRIDE

Size = tuple[int, int]
Rgb = npt.NDArray[np.uint8]

MASK_STRIDE = 4
"""Pixels of the network's input per cell of the mask logits."""


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """(height, width) of the video, of the frame the network sees, and of that with padding at the right and bottom."""

    original: Size
    resized: Size
    padded: Size


def fit_frame(original: Size, short_side: int, max_side: int) -> FrameSizes:
    """The shorter side becomes ``short_side`` unless the longer one would exceed ``max_side``."""
    height, width = original
    scale = short_side / min(height, width)
    high, wide = height * scale, width * scale
    if max(high, wide) > max_side:
        scale = max_side / max(high, wide)
        high, wide = high * scale, wide * scale
    resized = max(1, int(high + 0.5)), max(1, int(wide + 0.5))
    return FrameSizes(original, resized, (resized[0] + -resized[0] % STRIDE, resized[1] + -resized[1] % STRIDE))


def shrink(rgb: Rgb, sizes: FrameSizes) -> Rgb:
    """A frame at the size the network works at: bilinear with antialiasing, rounded to uint8 (Pillow)."""
    height, width = sizes.resized
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


def to_input(frames: Sequence[Rgb], sizes: FrameSizes, device: torch.device) -> Float[Tensor, "T 3 H W"]:
    """Resized frames, normalised, then zero-padded."""
    x = torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float()
    mean, std = torch.tensor(BYTE_MEAN, device=device), torch.tensor(BYTE_STD, device=device)
    x = (x - mean[:, None, None]) / std[:, None, None]
    (height, width), (high, wide) = sizes.resized, sizes.padded
    return F.pad(x, (0, wide - width, 0, high - height))


def full_logits(logits: Float[Tensor, "N h w"], sizes: FrameSizes) -> Float[Tensor, "N H W"]:
    """Mask logits in pixels of the video, in the official two steps; positive is object."""
    return to_original_size(logits, sizes.padded, sizes.resized, sizes.original)


def without_padding(logits: Float[Tensor, "N h w"], sizes: FrameSizes) -> Float[Tensor, "N h2 w2"]:
    """The logits of the frame alone, at the same resolution: a plain crop where its sides are multiples of 4."""
    grids = []
    for axis in (0, 1):
        inside, cells = sizes.resized[axis] / MASK_STRIDE, logits.shape[1 + axis]
        count = -(-sizes.resized[axis] // MASK_STRIDE)
        centre = (torch.arange(count, device=logits.device) + 0.5) * (inside / count)
        grids.append(centre * (2 / cells) - 1)
    grid = torch.stack(torch.meshgrid(grids[1], grids[0], indexing="xy"), -1)
    return F.grid_sample(logits[None], grid[None], padding_mode="border", align_corners=False)[0]
