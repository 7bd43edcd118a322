"""From a name or a file to an XMem network."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg.errors import WeightsError
from vidseg.weights.fetch import locate_model
from vidseg.weights.fit import check_state, config_from_metadata
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
    _, path = locate_model(weights, "XMem weights", "xmem", offline=offline)
    file = read_weights(path, _NETWORK)
    if not _NETWORK.fits(file.tensors):
        raise WeightsError(f"{path}: not an XMem, but {kind_of(file.tensors)}")
    text = file.metadata.get("config")
    if text is not None:
        config = config_from_metadata(XMemConfig, text, str(path))
    else:
        config = XMemConfig.from_state_dict(file.tensors, str(path))
    network = XMem(config)
    state = _complete(file.tensors, network.state_dict())
    check_state(state, network.state_dict(), str(path))
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


def _complete(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """float32 tensors; a single-object file gets a zero channel for the other objects' masks."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    conv = state.get(_MASK_CONV)
    if conv is not None and _MASK_CONV in wanted and conv.shape[1] == 4:
        state[_MASK_CONV] = torch.cat([conv, torch.zeros_like(conv[:, :1])], dim=1)
    return state
