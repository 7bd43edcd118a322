"""The network over a short sequence, with gradients: the tracker's procedure without a bounded memory or top-k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidseg_trackers.xmem.memory_reading import read_dense
from vidseg_trackers.xmem.network import KeyFeatures, XMem, aggregate, upsample_x4


def unroll(
    network: XMem,
    frames: Float[Tensor, "B T 3 H W"],
    given: Mapping[int, Float[Tensor, "B N H W"]],
    memorise: Sequence[bool],
) -> list[Float[Tensor, "B N+1 H W"]]:
    """Aggregated logits of frames 1..T-1, given normalised frames and the masks of frame 0, and of later ones.

    ``memorise[t-1]`` says whether frame t is written to memory; one whose masks are given is, with these, after it was
    predicted. As in the tracker, a frame that is written updates the sensory memory through its value only, and any
    other frame through the decoder only.
    """
    first = given[0]
    batch, length = frames.shape[:2]
    looks = network.encode_key(frames.flatten(0, 1))
    by_frame = [KeyFeatures(*(x.unflatten(0, (batch, length))[:, t] for x in looks)) for t in range(length)]
    look = by_frame[0]
    hidden = network.initial_hidden(look, first.shape[1])
    value, hidden = network.encode_value(frames[:, 0], look.f16, hidden, first)
    keys, shrinkages, values = [look.key], [look.shrinkage], [value]
    outputs = []
    for t in range(1, length):
        look = by_frame[t]
        readout = read_dense(
            look.key, look.selection, torch.stack(keys, 1), torch.stack(shrinkages, 1), torch.stack(values, 2)
        )
        last = t == length - 1
        write = (memorise[t - 1] or t in given) and not last
        logits, hidden = network.segment(look, readout, hidden, update_hidden=not (write or last))
        outputs.append(aggregate(torch.sigmoid(upsample_x4(logits))))
        if write:
            masks = given[t] if t in given else F.softmax(outputs[-1], 1)[:, 1:]
            value, hidden = network.encode_value(frames[:, t], look.f16, hidden, masks)
            keys.append(look.key)
            shrinkages.append(look.shrinkage)
            values.append(value)
    return outputs
