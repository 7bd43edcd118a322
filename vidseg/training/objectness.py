"""`vidseg train objectness`: a judge of masks, fitted to what a grid of clicks gives on annotated training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg.datasets.pairs import Item, Sample, load
from vidseg.errors import UsageError
from vidseg.sam.model import Sam
from vidseg.sam.objectness import SHAPE, Objectness, click_masks, describe_masks

#: Sources in which only the largest mask is an object: in street photographs the person.
WHOLE_ONLY = ("ccp",)


def draw_items(items: Sequence[Item], counts: dict[str, int], seed: int) -> list[Item]:
    """At most as many items of each source as ``counts`` says, at random."""
    rng, chosen = np.random.default_rng(seed), list[Item]()
    for source, count in counts.items():
        pool = [item for item in items if item.source == source]
        chosen += [pool[i] for i in rng.permutation(len(pool))[:count]]
    return chosen


def objects_of(item: Item) -> Sample:
    """The decoded item, with the masks that are whole objects."""
    sample = load(item, 640)
    if item.source not in WHOLE_ONLY:
        return sample
    return Sample(sample.image, (max(sample.masks, key=lambda mask: int((mask > 128).sum())),))


@torch.no_grad()
def examples(sam: Sam, sample: Sample, points_per_side: int) -> tuple[Tensor, Tensor]:
    """The masks of a grid of clicks as features (K, F), and the best IoU (K,) of each with an object of the sample."""
    (features,) = sam.encode([sample.image])
    found = click_masks(sam, features, points_per_side)
    size = (found.logits.shape[1], found.logits.shape[2])
    truth = torch.from_numpy(np.stack(sample.masks) > 128).float()
    truth = (F.adaptive_avg_pool2d(truth[None], size)[0] > 0.5).flatten(1).float()
    masks = (found.logits > 0).flatten(1).float()
    both = masks @ truth.T
    overlaps = both / (masks.sum(1, keepdim=True) + truth.sum(1) - both).clamp(min=1)
    described = describe_masks(features.embedding, found.logits, found.iou, found.stability)
    usable = masks.mean(1) > 1e-3
    return described[usable], overlaps.amax(1)[usable]


def fit_objectness(described: Sequence[Tensor], overlaps: Sequence[Tensor], decay: float) -> Objectness:
    """Logistic regression on soft labels: 0 up to an IoU of 0.3, 1 from 0.8 on. Every image has the same weight.

    Raises:
        UsageError: there is nothing to learn from.
    """
    if not described:
        raise UsageError("train objectness: no click gave a mask on any of the images; is the model trained?")
    features = torch.cat(list(described)).double()
    labels = ((torch.cat(list(overlaps)).double() - 0.3) / 0.5).clamp(0, 1)
    weights = torch.cat([torch.full((len(part),), 1 / len(part), dtype=torch.float64) for part in described])
    weights /= weights.sum()
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-4)
    inputs = (features - mean) / scale
    parameters = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    share = float((labels * weights).sum())
    with torch.no_grad():
        parameters[-1] = math.log(max(share, 1e-6) / max(1 - share, 1e-6))
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ parameters[:-1] + parameters[-1]
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        total = (each * weights).sum() + decay * parameters[:-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    weight = parameters.detach()[:-1] / scale
    judge = Objectness((inputs.shape[1] - SHAPE) // 2)
    with torch.no_grad():
        judge.weight.copy_(weight[None])
        judge.bias.copy_((parameters.detach()[-1] - weight @ mean)[None])
    return judge
