"""From a name or a file to a Cutie network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg.errors import WeightsError
from vidseg.weights.fetch import locate_model
from vidseg.weights.fit import check_state
from vidseg.weights.kinds import kind_of
from vidseg.weights.read import read_weights
from vidseg.weights.unwrap import ExpectedNetwork
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.modules import inverse_frequencies
from vidseg_trackers.cutie.network import Cutie

_NETWORK = ExpectedNetwork.of_parts("a Cutie", "pixel_encoder", "mask_encoder", "object_transformer", "mask_decoder")
_GROWING = {"pixel_fuser.sensory_compress.weight": 257, "mask_encoder.conv1.weight": 4}
"""Inputs of single-object files, which lack the channel of the other objects: name and number of their channels."""


def load_network(weights: str, *, device: torch.device, dtype: torch.dtype = torch.float32, offline: bool) -> Cutie:
    """A network in evaluation mode, without gradients, from a name of the catalogue or a file.

    Official files (base, small, single-object files, training checkpoints) load unchanged; what the size of a network
    is, the file says. What is used in training only may be missing.

    Raises:
        UsageError: no such name or file.
        WeightsError: missing, damaged or unsafe, or made for another network.
    """
    name, path = locate_model(weights, "Cutie weights", "cutie", offline=offline)
    state = {k: v.float() if v.is_floating_point() else v for k, v in read_weights(path, _NETWORK).tensors.items()}
    if not _NETWORK.fits(state):
        raise WeightsError(f"{path}: not a Cutie, but {kind_of(state)}")
    config = CutieConfig.of_state(state)
    _check_size(name, config, path)
    with torch.device("meta"):
        network = Cutie(config)
    expected = network.state_dict()
    state = _complete(state, expected)
    check_state(state, expected, str(path))
    network.load_state_dict(state, assign=True)
    for module in network.eval().requires_grad_(False).modules():
        if not isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    channels_last: Cutie = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last.to(device)


def _check_size(name: str, config: CutieConfig, path: Path) -> None:
    for size, encoder in (("base", "resnet50"), ("small", "resnet18")):
        if name.startswith(f"cutie-{size}") and config.encoder != encoder:
            other = "small" if size == "base" else "base"
            raise WeightsError(f"{path}: this is the {other} model, not the {size} one that {name} names")


def _complete(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a zero channel where a single-object file lacks one, and with what only training uses."""
    result = dict(state)
    for name, channels in _GROWING.items():
        tensor = result.get(name)
        if tensor is not None and tensor.ndim == 4 and tensor.shape[1] == channels:
            result[name] = torch.cat([tensor, torch.zeros_like(tensor[:, :1])], 1)
    for name, tensor in expected.items():
        if name not in result and name.startswith("aux_computer."):
            result[name] = torch.zeros(tensor.shape)
        elif name not in result and name.endswith(".inv_freq"):
            result[name] = inverse_frequencies(2 * len(tensor))
    return result
