"""Official Mask2Former files: detectron2's .pkl and .pth, and .safetensors, whatever their variant of the names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vidseg.errors import WeightsError
from vidseg.weights.fetch import locate_model
from vidseg.weights.fit import NoInitialWeights, check_state
from vidseg.weights.pickled_arrays import read_arrays
from vidseg.weights.read import no_such_file, read_weights
from vidseg.weights.unwrap import ExpectedNetwork
from vidseg_trackers.mask2former.config import config_from_state_dict
from vidseg_trackers.mask2former.network import Mask2Former

_NETWORK = ExpectedNetwork.of_parts("a Mask2Former", "backbone", "sem_seg_head")
_TORCH_MAGIC = b"\x8a\n"
"""After the protocol bytes: the long number that PyTorch's old format starts with."""
_IGNORED = re.compile(r"criterion\.|pixel_mean$|pixel_std$|.*\.relative_position_index$|.*\.num_batches_tracked$")


def load_network(
    weights: str, *, video: bool | None = None, device: torch.device | None = None, offline: bool = False
) -> Mask2Former:
    """A network in evaluation mode from a name of the catalogue (fetched unless ``offline``) or a file.

    ``video`` overrides whether its position code has a time axis (see :func:`config_from_state_dict`).

    Raises:
        UsageError: no such name. WeightsError: missing, unsafe, damaged, or not a Mask2Former.
    """
    name, path = locate_model(weights, "Mask2Former weights", "mask2former", offline=offline)
    if not name:
        warning = "weights %s: the published Mask2Former weights are CC BY-NC 4.0, for non-commercial use only"
        logging.getLogger("vidseg").warning(warning, path.name)
    return network_from_state_dict(read_state_dict(path), video=video, where=str(path)).to(device)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a file under their official names, in float32.

    Raises:
        WeightsError: missing, damaged, or a pickle that asks for anything but arrays.
    """
    if not path.is_file():
        raise no_such_file(path)
    with path.open("rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        plain = head[:1] == b"\x80" and head[2:4] != _TORCH_MAGIC
        tensors = read_arrays(stream, path, _NETWORK) if plain else read_weights(path, _NETWORK).tensors
    return official_names(tensors, where=str(path))


def official_names(state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Today's official names for the variants in circulation; buffers that are recomputed are left out.

    Files differ in a leading ``module.``, in ``static_query`` for ``query_feat``, and in whether the pixel decoder has
    its own segment in the names.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if _IGNORED.match(name):
            continue
        name = name.replace("predictor.static_query.", "predictor.query_feat.")
        name = re.sub(r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", "sem_seg_head.pixel_decoder.", name)
        if name in renamed:
            raise WeightsError(f"{where}: two tensors for '{name}'")
        renamed[name] = value.float()
    return renamed


def network_from_state_dict(state: Mapping[str, Tensor], *, video: bool | None = None, where: str) -> Mask2Former:
    """Build the network that ``state`` belongs to and give it these very tensors.

    Raises:
        WeightsError: names or shapes that no Mask2Former has.
    """
    config = config_from_state_dict(state)
    if video is not None:
        config = replace(config, video=video)
    with torch.device("meta"), NoInitialWeights():
        network = Mask2Former(config)
    check_state(state, network.state_dict(), where)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
