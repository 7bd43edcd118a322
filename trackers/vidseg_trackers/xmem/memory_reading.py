"""Reading memory: anisotropic similarity (XMem section 3.2, equation 2), and the readout with all or the top elements.

``S = -s_m * sum_c e_q[c] * (k_m[c] - k_q[c])^2 / sqrt(C)`` for memory element m and query pixel q. Expanded, it is one
matrix product of ``[-e, 2*e*k_q, -sum(e*k_q^2)]`` with ``[k_m^2, k_m, 1] * s_m / sqrt(C)``, always in float32. Elements
and pixels are rows, channels are columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def expand_memory(key: Float[Tensor, "*b M C"], shrinkage: Float[Tensor, "*b M 1"]) -> Float[Tensor, "*b M 2*C+1"]:
    """The memory side of the similarity; computed once per write, used by every read."""
    expanded = torch.cat([key.square(), key, torch.ones_like(shrinkage)], -1)
    return expanded.mul_(shrinkage * key.shape[-1] ** -0.5)  # in place: a full memory has only one copy of it


def expand_query(key: Float[Tensor, "*b Q C"], selection: Float[Tensor, "*b Q C"]) -> Float[Tensor, "*b Q 2*C+1"]:
    """The query side of the similarity."""
    weighted = selection * key
    return torch.cat([-selection, 2 * weighted, -(weighted * key).sum(-1, keepdim=True)], -1)


def similarity(
    query: Float[Tensor, "*b Q C"], memory: Float[Tensor, "*b M C"], out: Float[Tensor, "*b Q M"] | None = None
) -> Float[Tensor, "*b Q M"]:
    """Similarities (<= 0 up to rounding) of expanded queries and memory, in float32 also under autocast.

    They are written into ``out`` (float32) where it is given.
    """
    with torch.autocast(query.device.type, enabled=False):
        return torch.matmul(query.float(), memory.float().transpose(-1, -2), out=out)


def read_dense(
    key: Float[Tensor, "B C h w"],
    selection: Float[Tensor, "B C h w"],
    memory_key: Float[Tensor, "B T C h w"],
    memory_shrinkage: Float[Tensor, "B T 1 h w"],
    values: Float[Tensor, "B N T Cv h w"],
) -> Float[Tensor, "B N Cv h w"]:
    """Read T whole memory frames with a softmax over all their elements: the form used in training, with gradients."""
    rows = memory_key.permute(0, 1, 3, 4, 2).flatten(1, 3)
    shrinkage = memory_shrinkage.permute(0, 1, 3, 4, 2).flatten(1, 3)
    query = expand_query(key.flatten(2).transpose(1, 2), selection.flatten(2).transpose(1, 2))
    weights = torch.softmax(similarity(query, expand_memory(rows, shrinkage)), -1)
    flat = values.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, N*Cv, T*h*w)
    out = flat @ weights.to(flat.dtype).transpose(1, 2)
    return out.unflatten(1, values.shape[1:2] + values.shape[3:4]).unflatten(-1, key.shape[-2:])


def top_weights(scores: Float[Tensor, "Q M"], k: int) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """Softmax over the k largest similarities of every pixel, and their indices; k is clamped to M.

    The maximum is subtracted before the exponential: without it all weights become 0/0 once every similarity of a pixel
    is below about -103.
    """
    best, index = scores.topk(min(k, scores.shape[-1]), -1)
    return torch.softmax(best, -1), index


def top_weights_in_parts(
    query: Float[Tensor, "Q C"], memory: Float[Tensor, "M C"], k: int, limit: int
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """:func:`top_weights` of expanded queries and memory, with at most ``limit`` similarities at once."""
    step = max(1, limit // len(memory))
    scores = query.new_empty(min(step, len(query)), len(memory), dtype=torch.float32)
    parts = [top_weights(similarity(part, memory, scores[: len(part)]), k) for part in query.split(step)]
    weights, index = zip(*parts, strict=True)
    return torch.cat(weights), torch.cat(index)


def weighted_rows(
    values: Float[Tensor, "M Cv"], weights: Float[Tensor, "Q k"], index: Int[Tensor, "Q k"]
) -> Float[Tensor, "Q Cv"]:
    """Sum of k weighted rows per pixel: gathers k values instead of multiplying an affinity that is mostly zeros."""
    return F.embedding_bag(index, values, per_sample_weights=weights.to(values.dtype), mode="sum")
