"""From a name or a file to a Cutie network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg.errors import WeightsError
from vidseg.weights.fit import NoInitialWeights
from vidseg.weights.unwrap import ExpectedNetwork
from vidseg_trackers.cutie.config import NAMES, CutieConfig
from vidseg_trackers.cutie.modules import PositionalEncoding, inverse_frequencies
from vidseg_trackers.cutie.network import Cutie
from vidseg_trackers.mask_tracking.weights import finish, for_several_objects, read_tracker

_NETWORK = ExpectedNetwork.of_parts("a Cutie", "pixel_encoder", "mask_encoder", "object_transformer", "mask_decoder")
_SINGLE = {"pixel_fuser.sensory_compress.weight": 257, "mask_encoder.conv1.weight": 4}
_EXACT = (nn.BatchNorm2d, nn.LayerNorm, PositionalEncoding)


def load_network(weights: str, *, device: torch.device, dtype: torch.dtype = torch.float32, offline: bool) -> Cutie:
    """A network in evaluation mode, without gradients, from a name of the catalogue or a file.

    Official files (base, small, single-object files, training checkpoints) load unchanged; what the size of a network
    is, the file says. What is used in training only may be missing.

    Raises:
        UsageError: no such name or file.
        WeightsError: missing, damaged or unsafe, made for another network, or of another size than its name says.
    """
    path, state, _ = read_tracker(weights, "Cutie weights", "cutie", _NETWORK, offline=offline)
    config = CutieConfig.of_state(state)
    _check_size(config, path)
    with torch.device("meta"), NoInitialWeights():
        network = Cutie(config)
    state = _complete(for_several_objects(state, _SINGLE), network.state_dict())
    return finish(network, state, path, exact=_EXACT, dtype=dtype, device=device)


def _check_size(config: CutieConfig, path: Path) -> None:
    """Refuse a file that is named like a published one (``cutie-base-mega.pth``) and holds the other one."""
    for size, encoder in NAMES.items():
        if path.name.startswith(f"cutie-{size}") and config.encoder != encoder:
            other = next(name for name in NAMES if name != size)
            raise WeightsError(f"{path}: this is the {other} model, not the {size} one that its name says; rename it")


def _complete(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """With what only training uses."""
    result = dict(state)
    for name, tensor in expected.items():
        if name not in result and name.startswith("aux_computer."):
            result[name] = torch.zeros(tensor.shape)
        elif name not in result and name.endswith(".inv_freq"):
            result[name] = inverse_frequencies(2 * len(tensor))
    return result
