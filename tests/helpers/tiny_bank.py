"""A few stills and a clip in memory, as training data."""

from __future__ import annotations

import numpy as np

from vidseg_trackers.xmem.training.bank import Bank, Clip, Still


def disc(height: int, width: int, y: float, x: float, radius: float) -> np.ndarray:
    yy, xx = np.mgrid[:height, :width]
    return ((yy - y) ** 2 + (xx - x) ** 2 <= radius**2).astype(np.uint8)


def tiny_bank(*, clips: bool = True) -> Bank:
    """Stills and a clip whose objects are bright red on blue, so that colour tells the label."""
    stills = []
    for y, x in ((40, 40), (60, 80)):
        mask = disc(100, 120, y, x, 22)
        rgb = np.where(mask[..., None] > 0, np.array([230, 20, 20]), np.array([20, 20, 200])).astype(np.uint8)
        stills.append(Still(rgb, mask[None]))
    masks = np.stack([disc(100, 120, 50, 30 + 4 * t, 20) for t in range(8)])
    frames = np.where(masks[..., None] > 0, np.array([230, 20, 20]), np.array([20, 20, 200])).astype(np.uint8)
    return Bank(tuple(stills), np.ones(2) / 2, (), (Clip("moving", frames, masks),) if clips else ())
