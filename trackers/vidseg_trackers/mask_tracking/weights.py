"""From a name or a file to a network that follows masks: what is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vidseg.errors import WeightsError
from vidseg.weights.catalog import Family
from vidseg.weights.fetch import locate_model
from vidseg.weights.fit import check_state
from vidseg.weights.kinds import kind_of
from vidseg.weights.read import read_weights
from vidseg.weights.unwrap import ExpectedNetwork

N = TypeVar("N", bound=nn.Module)


class TrackerWeights(NamedTuple):
    """The tensors of a file, in float32."""

    path: Path
    state: dict[str, Tensor]
    config: str | None
    """The configuration as json, in files of ours."""


def read_tracker(weights: str, what: str, family: Family, network: ExpectedNetwork, *, offline: bool) -> TrackerWeights:
    """Weights by a name of the catalogue, fetched unless ``offline``, or from a file.

    ``what`` is what errors call the weights, such as "XMem weights".

    Raises:
        UsageError: no such name or file.
        WeightsError: missing, damaged or unsafe, or made for another network.
    """
    _, path = locate_model(weights, what, family, offline=offline)
    file = read_weights(path, network)
    if not network.fits(file.tensors):
        raise WeightsError(f"{path}: not {network.name}, but {kind_of(file.tensors)}")
    state = {k: v.float() if v.is_floating_point() else v for k, v in file.tensors.items()}
    return TrackerWeights(path, state, file.metadata.get("config"))


def for_several_objects(state: Mapping[str, Tensor], channels: Mapping[str, int]) -> dict[str, Tensor]:
    """A zero channel for the masks of other objects, where the file is one of a network for a single object.

    ``channels`` says how many inputs the convolutions have there, by name.
    """
    grown = dict(state)
    for name, count in channels.items():
        tensor = grown.get(name)
        if tensor is not None and tensor.ndim == 4 and tensor.shape[1] == count:
            grown[name] = torch.cat([tensor, torch.zeros_like(tensor[:, :1])], 1)
    return grown


def finish(
    network: N,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    exact: tuple[type[nn.Module], ...],
    dtype: torch.dtype,
    device: torch.device,
) -> N:
    """The network with these tensors, in evaluation mode and without gradients; it may be on the meta device before.

    What is in modules of the types ``exact``, at any depth, stays float32.

    Raises:
        WeightsError: the tensors do not fit.
    """
    check_state(state, network.state_dict(), str(path))
    network.load_state_dict(state, assign=True)
    kept = {part for module in network.modules() if isinstance(module, exact) for part in module.modules()}
    for module in network.eval().requires_grad_(False).modules():
        if module not in kept:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(dtype)
    channels_last: N = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last.to(device)
