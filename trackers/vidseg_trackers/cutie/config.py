"""Dimensions of a Cutie network: base and small of the publication, all of them free for smaller models."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from torch import Tensor

from vidseg.errors import UsageError, WeightsError, did_you_mean

Encoder = Literal["resnet50", "resnet18"]
NAMES = {"base": "resnet50", "small": "resnet18"}
"""The published sizes and their pixel encoders."""


@dataclass(frozen=True, slots=True)
class CutieConfig:
    """Widths of every part of the network. The defaults are the published base model (35.0 M parameters)."""

    encoder: Encoder = "resnet50"
    """Pixel encoder: ResNet-50 (base) or ResNet-18 (small), without the last stage."""
    pixel_dim: int = 256
    """Channels of the pixel feature, the values, the sensory memory and the object queries."""
    key_dim: int = 64
    queries: int = 16
    """Object queries; the first half attends to the object, the second to the rest."""
    heads: int = 8
    blocks: int = 3
    ff_dim: int = 2048
    up_dim: int = 128
    """Decoder width at 1/8 and 1/4."""

    def __post_init__(self) -> None:
        """Refuse dimensions no network can have (WeightsError)."""
        if self.encoder not in get_args(Encoder):
            raise WeightsError(f"Cutie encoder '{self.encoder}': allowed are {', '.join(get_args(Encoder))}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "encoder" and (not isinstance(value, int) or value < 1):
                raise WeightsError(f"Cutie {field.name} = {value!r}: a positive integer is expected")
        if self.pixel_dim % (4 * self.heads) or self.queries % 2:
            raise WeightsError(
                f"Cutie pixel_dim {self.pixel_dim}, heads {self.heads}, queries {self.queries}: "
                "pixel_dim must be a multiple of 4 * heads, queries even"
            )

    @classmethod
    def official(cls, name: str) -> CutieConfig:
        """The published ``base`` or ``small`` model.

        Raises:
            UsageError: another name.
        """
        if name not in NAMES:
            raise UsageError(f"Cutie model '{name}'{did_you_mean(name, NAMES)}: allowed are {', '.join(NAMES)}")
        return cls(encoder="resnet50" if name == "base" else "resnet18")

    @classmethod
    def of_state(cls, state: dict[str, Tensor]) -> CutieConfig:
        """The dimensions that a file of weights was made with; tensors that are missing leave the defaults."""

        def shape(name: str, place: int, default: int) -> int:
            tensor = state.get(name)
            return default if tensor is None or tensor.ndim <= place else int(tensor.shape[place])

        blocks = {name.split(".")[2] for name in state if name.startswith("object_transformer.blocks.")}
        return cls(
            encoder="resnet50" if "pixel_encoder.res2.0.conv3.weight" in state else "resnet18",
            pixel_dim=shape("pix_feat_proj.weight", 0, 256),
            key_dim=shape("key_proj.key_proj.weight", 0, 64),
            queries=shape("object_transformer.query_init.weight", 0, 16),
            blocks=max(1, len(blocks)),
            ff_dim=shape("object_transformer.blocks.0.ffn.linear1.weight", 0, 2048),
            up_dim=shape("mask_decoder.pred.weight", 1, 128),
        )

    @property
    def feature_dims(self) -> tuple[int, int, int]:
        """Channels of the image features at 1/16, 1/8 and 1/4."""
        return (1024, 512, 256) if self.encoder == "resnet50" else (256, 128, 64)
