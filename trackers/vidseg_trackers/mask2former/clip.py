"""The network on a clip: frames in chunks, then all queries at once; and the official choice of the best objects."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidseg.types import ShapeRepr
from vidseg_trackers.mask2former.frames import FrameSizes, Rgb, to_input
from vidseg_trackers.mask2former.network import ClipFeatures, Mask2Former, mask_logits
from vidseg_trackers.mask2former.transformer_decoder import Queries

CHUNK = 4
"""Frames that pass backbone and pixel decoder together."""


@dataclass(frozen=True, slots=True, repr=False)
class Best(ShapeRepr):
    """The N best pairs of query and class of a clip, best first; a query can appear with several classes."""

    scores: Float[Tensor, " N"]
    labels: Int[Tensor, " N"]
    queries: Int[Tensor, " N"]


@torch.inference_mode()
def run_clip(
    network: Mask2Former, frames: Sequence[Rgb], sizes: FrameSizes, dtype: torch.dtype = torch.float32
) -> tuple[Queries, Float[Tensor, "T C h w"]]:
    """Queries and mask features of a clip of resized frames (see :func:`vidseg_trackers.mask2former.frames.shrink`).

    ``dtype`` other than float32 is used by autocast, as in the official evaluation; the pixel decoder stays in float32.
    """
    device = next(network.parameters()).device
    precision: AbstractContextManager[Any] = (
        nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
    )
    with precision:
        features = network.encode(to_input(frames[:CHUNK], sizes, device))
        if len(frames) > CHUNK:
            # Room for the whole clip first: joining parts at the end would need twice the memory.
            coarse, middle, fine, masks = (
                x.new_empty(len(frames), *x.shape[1:]) for x in (*features.maps, features.mask_features)
            )
            whole = ClipFeatures((coarse, middle, fine), masks)
            _put(whole, features, 0)
            for i in range(CHUNK, len(frames), CHUNK):
                _put(whole, network.encode(to_input(frames[i : i + CHUNK], sizes, device)), i)
            features = whole
        return network.decode(features), features.mask_features


def _put(whole: ClipFeatures, part: ClipFeatures, start: int) -> None:
    """Copy the features of the frames from ``start`` on into those of the whole clip."""
    pairs = zip((*whole.maps, whole.mask_features), (*part.maps, part.mask_features), strict=True)
    for target, source in pairs:
        target[start : start + len(source)] = source


def best_objects(queries: Queries, count: int = 10) -> Best:
    """The official choice: the largest class probabilities over all queries and classes."""
    scores = queries.class_logits.softmax(-1)[:, :-1]
    classes = scores.shape[1]
    best, index = scores.flatten().topk(min(count, scores.numel()))
    return Best(best, index % classes, index // classes)


def once_per_query(best: Best, min_score: float) -> Best:
    """Every query with its best class only, from ``min_score`` on."""
    seen: set[int] = set()
    keep = []
    for row, query in enumerate(best.queries.tolist()):
        if query not in seen and float(best.scores[row]) >= min_score:
            keep.append(row)
        seen.add(query)
    return Best(best.scores[keep], best.labels[keep], best.queries[keep])


def query_masks(
    queries: Queries, chosen: Int[Tensor, " N"], mask_features: Float[Tensor, "T C h w"]
) -> Float[Tensor, "N T h w"]:
    """Mask logits of the chosen queries at 1/4 of the padded input: chosen first, so that no others are ever made."""
    return mask_logits(queries.mask_embeddings[chosen], mask_features)
