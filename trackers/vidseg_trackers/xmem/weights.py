"""From a name or a file to an XMem network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vidseg.errors import UsageError, WeightsError, did_you_mean
from vidseg.weights.catalog import CATALOG
from vidseg.weights.fetch import locate
from vidseg.weights.kinds import kind_of
from vidseg.weights.read import read_weights
from vidseg.weights.unwrap import ExpectedNetwork
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem

_NETWORK = ExpectedNetwork.of_parts("an XMem", "key_encoder", "value_encoder", "key_proj", "decoder")
_MASK_CONV = "value_encoder.conv1.weight"


def load_network(weights: str, *, device: torch.device, dtype: torch.dtype = torch.float32, offline: bool) -> XMem:
    """A network in evaluation mode, without gradients, from a name of the catalogue or a file.

    Official files (``XMem.pth``, ``XMem-s012.pth``, ``XMem-no-sensory.pth``, single-object files) load unchanged; files
    of ours carry their :class:`XMemConfig` as json.

    Raises:
        UsageError: no such name or file.
        WeightsError: missing, damaged or unsafe, or made for another network.
    """
    path = _find(weights, offline)
    file = read_weights(path, _NETWORK)
    if not _NETWORK.fits(file.tensors):
        raise WeightsError(f"{path}: not an XMem, but {kind_of(file.tensors)}")
    text = file.metadata.get("config")
    try:
        config = XMemConfig.from_json(text) if text is not None else XMemConfig.from_state_dict(file.tensors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    network = XMem(config)
    state = _complete(file.tensors, network.state_dict())
    _check(path, state, network.state_dict())
    network.load_state_dict(state)
    _cast(network.eval().requires_grad_(False), dtype)
    channels_last: XMem = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last.to(device)


def _cast(network: XMem, dtype: torch.dtype) -> None:
    """Parameters and buffers to ``dtype``; the statistics of normalisations stay float32."""
    for module in network.modules():
        if not isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(dtype)


def _find(weights: str, offline: bool) -> Path:
    names = [name for name, entry in CATALOG.items() if entry.family == "xmem"]
    if weights in names:
        return locate(weights, offline=offline)
    path = Path(weights)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    raise UsageError(f"unknown XMem weights '{weights}'{did_you_mean(weights, names)}: a file, or {', '.join(names)}")


def _complete(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """float32 tensors; a single-object file gets a zero channel for the other objects' masks."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    conv = state.get(_MASK_CONV)
    if conv is not None and _MASK_CONV in wanted and conv.shape[1] == 4:
        state[_MASK_CONV] = torch.cat([conv, torch.zeros_like(conv[:, :1])], dim=1)
    return state


def _check(path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in wanted:
        if name not in state:
            raise WeightsError(f"{path}: not these XMem weights: tensor '{name}' is missing")
    for name, tensor in state.items():
        if name not in wanted:
            raise WeightsError(f"{path}: not these XMem weights: tensor '{name}' is not known")
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, {tuple(wanted[name].shape)} wanted"
            raise WeightsError(f"{path}: tensor '{name}' has shape {shapes}")
