"""Small files of what was trained beside a frozen SAM - LoRA, adapters - which load onto the SAM they were made for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from vidseg.atomic_files import atomic_file, make_folder
from vidseg.errors import WeightsError
from vidseg.sam.config import SamConfig
from vidseg.sam.lora import merge_lora
from vidseg.sam.model import Sam
from vidseg.weights.fit import config_from_metadata
from vidseg.weights.read import WeightFile

_BASE = "added_to"
"""Key of the metadata: the fingerprint of the image encoder that the tensors belong to."""


def holds_added(file: WeightFile) -> bool:
    """Whether a file holds only what was added to a SAM."""
    return _BASE in file.metadata


def save_added(sam: Sam, names: Iterable[str], path: Path) -> None:
    """Write the tensors ``names`` of ``sam``, in float32; the file appears whole or not at all."""
    state = sam.state_dict()
    kept = set(names)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if name in kept}
    base = {name: value for name, value in state.items() if name not in kept}
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.write(save(tensors, {"config": sam.config.to_json(), _BASE: fingerprint(base), "format": "pt"}))


def join_added(base: Mapping[str, Tensor], name: str, file: WeightFile) -> tuple[SamConfig, dict[str, Tensor]]:
    """Configuration and state dict of the SAM ``base`` (official names, called ``name``) with what ``file`` adds.

    LoRA is merged into the weights.

    Raises:
        WeightsError: a whole network, or additions to another one.
    """
    if not holds_added(file):
        raise WeightsError(f"{file.path}: expected LoRA or adapters from `vidseg train hq`, to be added to {name}")
    state = {key: value for key, value in base.items() if key not in file.tensors}
    if fingerprint(state) != file.metadata[_BASE]:
        raise WeightsError(
            f"{file.path} was trained on another SAM than {name} (the image encoders differ): name the one that its"
            " recipe started from"
        )
    config = config_from_metadata(SamConfig, file.metadata["config"], str(file.path))
    return config, merge_lora({**state, **file.tensors})


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """A checksum of the image encoder of a state dict, the same in every file format."""
    checksum = 0
    for name in sorted(name for name in state if name.startswith("image_encoder.")):
        checksum = zlib.crc32(state[name].detach().cpu().float().numpy().tobytes(), checksum)
    return f"{checksum:08x}"
