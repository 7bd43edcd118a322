"""Dimensions of a Mask2Former network, as data: the published models by name, and what a file of weights says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt

from torch import Tensor

from vidseg.backbones.resnet import ResNetConfig
from vidseg.backbones.swin import SwinConfig
from vidseg.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Mask2FormerConfig:
    """One Mask2Former network (arXiv 2112.01527; for videos 2112.10764). The defaults are the published R50 model."""

    backbone: ResNetConfig | SwinConfig = field(default_factory=ResNetConfig)
    classes: int = 40
    queries: int = 100
    dim: int = 256
    """Width of pixel decoder, transformer decoder and mask features; a multiple of 32."""
    heads: int = 8
    points: int = 4
    """Sampling points per level and head of the deformable attention."""
    encoder_layers: int = 6
    encoder_ffn: int = 1024
    decoder_layers: int = 9
    decoder_ffn: int = 2048
    video: bool = True
    """True: the position code of the decoder has a time axis. False: the network was trained on single images."""

    def __post_init__(self) -> None:
        """Refuse dimensions no network can have."""
        if self.dim % 32 or self.dim % self.heads:
            raise WeightsError(f"Mask2Former width {self.dim}: expected a multiple of 32 and of its {self.heads} heads")


_SWIN_B = SwinConfig(128, (2, 2, 18, 2), (4, 8, 16, 32), 12)
_SWIN_L = SwinConfig(192, (2, 2, 18, 2), (6, 12, 24, 48), 12)
ARCHITECTURES: Mapping[str, Mask2FormerConfig] = {
    "r50": Mask2FormerConfig(ResNetConfig()),
    "r101": Mask2FormerConfig(ResNetConfig((3, 4, 23, 3))),
    "swin-t": Mask2FormerConfig(SwinConfig()),
    "swin-s": Mask2FormerConfig(SwinConfig(depths=(2, 2, 18, 2))),
    "swin-b": Mask2FormerConfig(_SWIN_B),
    "swin-l": Mask2FormerConfig(_SWIN_L, queries=200),
}
"""The published networks."""

_VIDEO_CLASSES = 40


def config_from_state_dict(state: Mapping[str, Tensor]) -> Mask2FormerConfig:
    """The network that a state dict with the official names belongs to.

    Everything but the number of heads (8 in all published models) follows from names and shapes. ``video`` is True for
    40 classes (YouTube-VIS) and False for others (COCO has 80, OVIS 25).

    Raises:
        WeightsError: it is no Mask2Former.
    """
    head = "sem_seg_head.predictor."
    encoder = "sem_seg_head.pixel_decoder.transformer.encoder.layers"
    queries = _shape(state, head + "query_feat.weight")
    offsets = _shape(state, f"{encoder}.0.self_attn.sampling_offsets.weight")
    classes = _shape(state, head + "class_embed.weight")[0] - 1
    return Mask2FormerConfig(
        backbone=_backbone(state),
        classes=classes,
        queries=queries[0],
        dim=queries[1],
        points=offsets[0] // (8 * 3 * 2),
        encoder_layers=_count(state, encoder),
        encoder_ffn=_shape(state, f"{encoder}.0.linear1.weight")[0],
        decoder_layers=_count(state, head + "transformer_ffn_layers"),
        decoder_ffn=_shape(state, head + "transformer_ffn_layers.0.linear1.weight")[0],
        video=classes == _VIDEO_CLASSES,
    )


def _backbone(state: Mapping[str, Tensor]) -> ResNetConfig | SwinConfig:
    if "backbone.stem.conv1.weight" in state:
        depths = tuple(_count(state, f"backbone.res{i}") for i in range(2, 6))
        return ResNetConfig(depths, state["backbone.stem.conv1.weight"].shape[0])
    stages = range(_count(state, "backbone.layers"))
    tables = [_shape(state, f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table") for i in stages]
    return SwinConfig(
        _shape(state, "backbone.patch_embed.proj.weight")[0],
        tuple(_count(state, f"backbone.layers.{i}.blocks") for i in stages),
        tuple(table[1] for table in tables),
        (isqrt(tables[0][0]) + 1) // 2,
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different next parts of the names that start with ``prefix``."""
    return len({name[len(prefix) + 1 :].partition(".")[0] for name in state if name.startswith(prefix + ".")})


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise WeightsError(f"not a Mask2Former state dict: tensor '{name}' is missing")
    return tuple(state[name].shape)
