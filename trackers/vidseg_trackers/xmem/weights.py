"""From a name or a file to an XMem network."""

from __future__ import annotations

import torch

from vidseg.weights.fit import NoInitialWeights, config_from_metadata
from vidseg.weights.unwrap import ExpectedNetwork
from vidseg_trackers.mask_tracking.weights import finish, for_several_objects, read_tracker
from vidseg_trackers.xmem.compact import CompactKeyEncoder
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem

_NETWORK = ExpectedNetwork.of_parts("an XMem", "key_encoder", "value_encoder", "key_proj", "decoder")
EXACT = (torch.nn.BatchNorm2d, CompactKeyEncoder)
"""What stays float32. With the weights of its key encoder rounded to bfloat16, the compact network loses objects that
it follows otherwise, however precisely it computes with them."""
_SINGLE = {"value_encoder.conv1.weight": 4}


def load_network(weights: str, *, device: torch.device, dtype: torch.dtype = torch.float32, offline: bool) -> XMem:
    """A network in evaluation mode, without gradients, from a name of the catalogue or a file.

    Official files (``XMem.pth``, ``XMem-s012.pth``, ``XMem-no-sensory.pth``, single-object files) load unchanged; files
    of ours carry their :class:`XMemConfig` as json.

    Raises:
        UsageError: no such name or file.
        WeightsError: missing, damaged or unsafe, or made for another network.
    """
    path, state, text = read_tracker(weights, "XMem weights", "xmem", _NETWORK, offline=offline)
    if text is not None:
        config = config_from_metadata(XMemConfig, text, str(path))
    else:
        config = XMemConfig.from_state_dict(state, str(path))
    if config.encoder == "resnet":
        state = for_several_objects(state, _SINGLE)
    with NoInitialWeights():
        network = XMem(config)
    return finish(network, state, path, exact=EXACT, dtype=dtype, device=device)
