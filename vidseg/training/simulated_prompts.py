"""Prompts made from a ground truth mask: boxes, points and masks with the errors that prompts have in practice."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from vidseg.datasets.pairs import Mask

Floats = npt.NDArray[np.float32]
#: Logits of a mask prompt stay within this bound, as those of a tracker or of an earlier answer do.
LOGIT_BOUND = 10.0
#: Shares of careful, hasty and badly-off boxes, see :func:`jitter_box`.
BOX_SHARES = (0.6, 0.25, 0.15)


def tight_box(mask: Mask) -> Floats:
    """Box (x1, y1, x2, y2) of the pixels above 128, right and bottom exclusive; zeros for an empty mask."""
    ys, xs = np.nonzero(mask.max(axis=1) > 128)[0], np.nonzero(mask.max(axis=0) > 128)[0]
    if not len(xs):
        return np.zeros(4, dtype=np.float32)
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float32)


def jitter_box(
    rng: np.random.Generator, box: Floats, height: int, width: int, shares: Sequence[float] = BOX_SHARES
) -> Floats:
    """A box as a person or a tracker would draw it; ``shares`` of careful, hasty and badly-off ones, adding up to 1.

    Careful: every side within 4 % of the box's size. Hasty: within 12 %. Badly off: the box noise of HQ-SAM, table 13
    (shift by up to half, size by up to the whole of s times the side), with s = 0.4.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    w, h = x2 - x1, y2 - y1
    kind = rng.random()
    careful, hasty, _ = shares
    if kind < careful + hasty:
        amount = 0.04 if kind < careful else 0.12
        d = rng.uniform(-amount, amount, 4) * (w, h, w, h)
        corners = [x1 + d[0], y1 + d[1], x2 + d[2], y2 + d[3]]
    else:
        u = rng.uniform(-0.4, 0.4, 4) * (w / 2, h / 2, w, h)
        cx, cy, nw, nh = (x1 + x2) / 2 + u[0], (y1 + y2) / 2 + u[1], w + u[2], h + u[3]
        corners = [cx - nw / 2, cy - nh / 2, cx + nw / 2, cy + nh / 2]
    return np.clip(corners, 0, [width, height, width, height]).astype(np.float32)


def click(rng: np.random.Generator, mask: Mask) -> Floats:
    """One pixel (x, y) of ``mask`` (> 128): half of the time anywhere, else deep inside. The mask must not be empty."""
    inside = (mask > 128).astype(np.uint8)
    if rng.random() < 0.5:
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        inside = (depth >= 0.6 * depth.max()).astype(np.uint8)
    ys, xs = np.nonzero(inside)
    i = int(rng.integers(len(xs)))
    return np.array([xs[i], ys[i]], dtype=np.float32)


def clicks(
    rng: np.random.Generator, mask: Mask, count: int, others: Sequence[Mask] = ()
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """``count`` points (count, 2) with labels: the first on the object, the others on it (60 %) or beside it.

    Half of those beside it are on one of the ``others``, where there are any: the neighbours that a mask swallowed.
    """
    neighbours = [free for other in others if (free := np.where(mask <= 128, other, 0).astype(np.uint8)).max() > 128]
    points, labels = [click(rng, mask)], [1]
    near: Mask | None = None
    for _ in range(count - 1):
        if rng.random() < 0.6:
            points.append(click(rng, mask))
            labels.append(1)
            continue
        if neighbours and rng.random() < 0.5:
            points.append(click(rng, neighbours[int(rng.integers(len(neighbours)))]))
            labels.append(0)
            continue
        if near is None:
            size = max(3, int(0.25 * np.sqrt(np.count_nonzero(mask > 128)))) | 1
            ring = cv2.dilate((mask > 128).astype(np.uint8), np.ones((size, size), np.uint8))
            near = np.where((ring > 0) & (mask <= 128), 255, 0).astype(np.uint8)
        if near.any():
            ys, xs = np.nonzero(near)
            i = int(rng.integers(len(xs)))
            points.append(np.array([xs[i], ys[i]], dtype=np.float32))
            labels.append(0)
        else:
            points.append(click(rng, mask))
            labels.append(1)
    return np.stack(points), np.array(labels, dtype=np.int64)


def noisy_logits(rng: np.random.Generator, mask: Mask) -> Floats:
    """The mask of an imagined tracker as logits at a quarter of the resolution: (H, W) -> (H/4, W/4), within +-10.

    Moved, scaled, blurred, its outline shifted by smooth noise, parts missing or added where the noise is strong.
    """
    height, width = mask.shape[0] // 4, mask.shape[1] // 4
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    x1, y1, x2, y2 = tight_box(mask) / 4
    size = max(2.0, float(np.sqrt(max(x2 - x1, 1) * max(y2 - y1, 1))))
    amount = float(rng.choice([0.0, 0.03, 0.08], p=[0.4, 0.4, 0.2]))
    zoom = 1 + rng.uniform(-amount, amount)
    shift = rng.uniform(-amount, amount, 2) * size
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    matrix = np.array([[zoom, 0, cx - zoom * cx + shift[0]], [0, zoom, cy - zoom * cy + shift[1]]])
    field = cv2.warpAffine(small, matrix, (width, height), flags=cv2.INTER_LINEAR)
    field = cv2.GaussianBlur(field, (0, 0), float(rng.uniform(0.5, max(0.6, 0.05 * size)))) - 0.5
    cells = (max(2, round(6 * width / size)), max(2, round(6 * height / size)))
    noise = rng.standard_normal((min(cells[1], height), min(cells[0], width))).astype(np.float32)
    spots = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    near = cv2.GaussianBlur(small, (0, 0), 0.12 * size)
    field += float(rng.choice([0.1, 0.3, 0.6])) * spots * np.clip(2 * near, 0.03, 1)
    return np.clip(field * rng.uniform(8, 40), -LOGIT_BOUND, LOGIT_BOUND).astype(np.float32)
