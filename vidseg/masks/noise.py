"""Masks with noise along their outline: the mask prompt of HQ-SAM's training and evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Floats = npt.NDArray[np.float32]


def noise_mask(rng: np.random.Generator, mask: Floats, size: int = 256, factor: int = 8) -> Floats:
    """HQ-SAM's noisy mask prompt of a mask (H, W) in 0..255 -> (size, size) of 0 and 255.

    Gaussian noise of sigma 1 is added where the mask differs from its ``factor``-fold reduced and enlarged self by 0.01
    or more (a band along the outline); the sum is cut at one half.
    """
    full = F.interpolate(torch.from_numpy(mask)[None, None] / 255, (size, size), mode="bilinear", align_corners=False)
    coarse = F.interpolate(full, (size // factor, size // factor), mode="bilinear", align_corners=False)
    residue = (full - F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)).abs()
    noise = torch.from_numpy(rng.standard_normal((size, size)).astype(np.float32))
    noisy = torch.where(residue >= 0.01, full + noise, full)
    return ((noisy > 0.5).float() * 255)[0, 0].numpy()
