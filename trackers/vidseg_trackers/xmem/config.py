"""Dimensions of an XMem network: the official ones by default, all of them free for smaller models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch

from vidseg.errors import WeightsError


@dataclass(frozen=True, slots=True)
class XMemConfig:
    """Widths of every part of the network. The defaults are the published model (62.2 M parameters)."""

    encoder: Literal["resnet", "compact"] = "resnet"
    """'resnet': ResNet-50 key and ResNet-18 value encoder (official); 'compact': the small ones of ``compact.py``."""
    key_dim: int = 64
    value_dim: int = 512
    hidden_dim: int = 64
    """Channels of the sensory memory; 0 = a network without sensory memory."""
    f16_dim: int = 1024
    """Channels of the image features at 1/16 ..."""
    f8_dim: int = 512
    f4_dim: int = 256
    mask_dim: int = 256
    """Channels the trunk of the value encoder gives at 1/16."""
    fuser_dim: int = 512
    """Width inside the fuser of the value encoder."""
    g16_dim: int = 512
    """Decoder width at 1/16, 1/8 and 1/4."""
    g8_dim: int = 256
    g4_dim: int = 256
    sensory_dim: int = 256
    """Width of the features that update the sensory memory in the decoder."""
    size: int = 480
    """Shorter side, in pixels, the network was trained for: the default internal size."""

    def __post_init__(self) -> None:
        """Refuse dimensions no network can have."""
        if self.encoder not in ("resnet", "compact"):
            raise WeightsError(f"XMem encoder '{self.encoder}': allowed are 'resnet' and 'compact'")
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "hidden_dim" else 1
            if field.name != "encoder" and (not isinstance(value, int) or value < least):
                raise WeightsError(f"XMem config {field.name} = {value!r}: expected an integer >= {least}")

    def to_json(self) -> str:
        """The config as the json text stored in the metadata of a safetensors file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor], where: str) -> XMemConfig:
        """Infer key, value and hidden dimension of an official file from its tensors.

        Raises:
            WeightsError: the tensors the dimensions are read from are missing.
        """
        key, value = "key_proj.key_proj.weight", "value_encoder.fuser.block2.conv2.weight"
        for name in (key, value):
            if name not in state:
                raise WeightsError(f"{where}: not an XMem: tensor '{name}' is missing")
        hidden = state.get("decoder.hidden_update.transform.weight")
        return cls(
            key_dim=int(state[key].shape[0]),
            value_dim=int(state[value].shape[0]),
            hidden_dim=0 if hidden is None else int(hidden.shape[0]) // 3,
        )
