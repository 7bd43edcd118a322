"""Training data of HQ-SAM: whole images with one mask, flipped, jittered in scale, with one prompt each.

The recipe of the released training code: horizontal flip, large-scale jittering to the network's square input, and per
batch one kind of prompt out of box, ten points and noisy mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from vidseg.datasets.layouts import HQSEG_TRAIN, HQSEG_VAL, SA1B
from vidseg.datasets.pairs import Image, Item, Mask, Sample, find_pairs, load
from vidseg.datasets.sa1b import find_images
from vidseg.errors import UsageError, did_you_mean
from vidseg.masks.noise import noise_mask
from vidseg.training.batches import Batch
from vidseg.training.simulated_prompts import tight_box

#: Grey that fills the square beside a small image (before normalisation).
PADDING = 128
POINTS = 10


def find_sets(root: Path, names: Sequence[str], sample: int = 0, seed: int = 0) -> list[Item]:
    """Items of the named sets of HQSeg-44K (training or validation) or of ``IMAGES:MASKS`` folders below ``root``.

    ``sa1b`` is a folder of SA-1B, of which ``sample`` images are drawn (0: all).
    """
    known = {**HQSEG_TRAIN, **HQSEG_VAL}
    items = []
    for name in names:
        if name == SA1B:
            found = find_images(root / SA1B, sample, seed)
            items += [Item(path.stem, name, path, (path.with_suffix(".json"),)) for path in found]
            continue
        images, _, masks = name.partition(":")
        if not masks:
            if name not in known:
                allowed = ", ".join([*known, SA1B])
                raise UsageError(f"data set {name!r}{did_you_mean(name, known)}: use IMAGES:MASKS or one of {allowed}")
            images, masks = known[name]
        items += find_pairs(root / images, root / masks, source=name)
    return items


def scale_jitter(
    rng: np.random.Generator, image: Image, mask: Mask, size: int, scale: tuple[float, float]
) -> tuple[Image, Mask]:
    """Resize by a random factor of the fit into ``size``, crop at random, pad right and below -> (size, size) both.

    Bilinear for the mask too: it becomes soft.
    """
    target = round(size * float(rng.uniform(*scale)))
    h, w = mask.shape
    factor = min(target / h, target / w)
    new = max(1, round(w * factor)), max(1, round(h * factor))
    image = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    mask = cv2.resize(mask, new, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    y = int(rng.integers(max(0, new[1] - size) + 1))
    x = int(rng.integers(max(0, new[0] - size) + 1))
    image, mask = image[y : y + size, x : x + size], mask[y : y + size, x : x + size]
    canvas = np.full((size, size, 3), PADDING, dtype=np.uint8)
    canvas[: mask.shape[0], : mask.shape[1]] = image
    cover = np.zeros((size, size), dtype=np.uint8)
    cover[: mask.shape[0], : mask.shape[1]] = mask
    return canvas, cover


def draw_pair(
    rng: np.random.Generator, sample: Sample, size: int, scale: tuple[float, float], tries: int = 10
) -> tuple[Image, Mask]:
    """Image and one mask of it, augmented. Crops that lost the object are drawn again, at last without a crop."""
    mask = sample.masks[int(rng.integers(len(sample.masks)))]
    image = sample.image
    if rng.random() >= 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    for _ in range(tries):
        pair = scale_jitter(rng, image, mask, size, scale)
        if (pair[1] > 128).any():
            return pair
    return scale_jitter(rng, image, mask, size, (1.0, 1.0))


def folder_batch(
    rng: np.random.Generator,
    items: Sequence[Item],
    size: int,
    scale: tuple[float, float],
    read: Callable[[Item], Sample] = load,
) -> Batch:
    """One prompt per item, all of one kind. Points need ten foreground pixels in every mask, else they are not drawn.

    A mask that is empty even without a crop teaches "nothing here": its box is (0, 0, 0, 0).
    """
    pairs = [draw_pair(rng, read(item), size, scale) for item in items]
    masks = [mask for _, mask in pairs]
    kinds = ["box", "mask"]
    if all(np.count_nonzero(mask > 128) >= POINTS for mask in masks):
        kinds.insert(1, "points")
    kind = kinds[int(rng.integers(len(kinds)))]
    n = len(masks)
    points = np.zeros((n, POINTS if kind == "points" else 0, 2), np.float32)
    logits = np.zeros((n, 1, size // 4, size // 4), np.float32)
    boxes = np.stack([tight_box(mask) for mask in masks])
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, 0)  # the released code takes the last pixel, not the one after it
    for i, mask in enumerate(masks):
        if kind == "points":
            ys, xs = np.nonzero(mask > 128)
            chosen = rng.choice(len(xs), POINTS, replace=False)
            points[i] = np.stack([xs[chosen], ys[chosen]], axis=1)
        elif kind == "mask":
            logits[i, 0] = noise_mask(rng, mask.astype(np.float32), size // 4)
    return Batch(
        images=torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2),
        rows=torch.arange(n),
        targets=torch.from_numpy(np.stack(masks))[:, None].float() / 255,
        layout="none" if kind == "mask" else "two",
        boxes=torch.from_numpy(boxes),
        is_box=torch.full((n,), kind == "box"),
        points=torch.from_numpy(points),
        labels=torch.ones(points.shape[:2], dtype=torch.int64),
        box_points=torch.zeros(n, 0, 2),
        box_labels=torch.zeros(n, 0, dtype=torch.int64),
        logits=torch.from_numpy(logits),
        has_mask=torch.full((n,), kind == "mask"),
        fine=torch.ones(n, dtype=torch.bool),
    )


def epoch_indices(seed: int, batch: int, size: int, count: int) -> list[int]:
    """Indices of the ``batch``-th batch of ``size`` over a data set of ``count``: a new permutation every epoch.

    Batches that would cross the end of an epoch do not exist: its last ``count % size`` items are left out of it.
    """
    if count < size:
        raise UsageError(f"training: {count} images do not fill a batch of {size}")
    per_epoch = count // size
    epoch, position = divmod(batch, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return [int(i) for i in order[position * size : (position + 1) * size]]
