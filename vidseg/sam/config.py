"""The sizes of one SAM network, as data: everything the modules need to be built, nothing about weights or devices."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Protocol, get_args

from vidseg.backbones.imagenet import BYTE_MEAN, BYTE_STD
from vidseg.backbones.tiny_vit import TinyVitConfig
from vidseg.errors import UsageError, did_you_mean
from vidseg.options import load_yaml

EncoderKind = Literal["vit", "tiny_vit", "compact"]
Pad = Literal["square", "stride"]
Output = Literal["sum", "hq", "sam"]

QUALITY = 0.88
"""Predicted quality from which the official generator keeps automatic masks."""
STRIDE = 16
"""Pixels of the input image per cell of the embedding, in every SAM network."""


class InputConfig(Protocol):
    """What is asked of a network of the SAM family: how images enter it, and which masks it hands out."""

    @property
    def image_size(self) -> int: ...
    @property
    def pad(self) -> str: ...
    @property
    def hq(self) -> bool: ...
    @property
    def output(self) -> Output: ...
    @property
    def quality(self) -> float: ...


@dataclass(frozen=True, slots=True)
class VitConfig:
    """ViT of Segment Anything: ``global_blocks`` attend everywhere, the others in windows."""

    embed_dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    mlp_ratio: float = 4.0


@dataclass(frozen=True, slots=True)
class SamConfig:
    """One SAM or HQ-SAM network.

    ``early_channels`` and ``early_stride`` describe the early encoder feature that the HQ branch fuses: stride 16 in
    the official networks, 4 in the compact one. With ``hq_mix`` the fused feature also enters the mask convolutions of
    every prompt, and these see further (official: it is only added to their result). Without ``hq_fusion`` the HQ token
    reads SAM's mask feature as it is (HQ-SAM, table 2, "using SAM's mask decoder feature"); with ``hq_pyramid`` it
    reads a feature pyramid instead (section 4.2). With ``hq_attends`` the HQ token attends to SAM's output tokens
    before it draws (table 2). ``context_tokens``: how many of them the decoder has (table 2); ``adapter_dim``: width of
    the adapters in the blocks of a ViT (table 9), 0 for none. ``pad`` "square" fills the input up to ``image_size`` on
    both sides as the official code does; "stride" only up to the next multiple of 32. Coordinates are divided by
    ``image_size`` in both cases, so the positional code is the same. ``prompt_map`` also draws boxes and points into
    the mask prompt. ``objectness``: the file also has a judge of what is an object. ``pixel_mean`` and ``pixel_std``
    are on the 0..255 scale, RGB.
    """

    encoder: EncoderKind
    hq: bool = True
    vit: VitConfig | None = None
    tiny_vit: TinyVitConfig | None = None
    image_size: int = 1024
    pad: Pad = "square"
    prompt_dim: int = 256
    early_channels: int = 0
    early_stride: Literal[4, 16] = 16
    hq_mix: bool = False
    hq_fusion: bool = True
    hq_pyramid: bool = False
    hq_attends: bool = False
    context_tokens: int = 0
    adapter_dim: int = 0
    decoder_mlp_dim: int = 2048
    decoder_heads: int = 8
    iou_hidden_dim: int = 256
    mask_in_channels: int = 16
    prompt_map: bool = False
    objectness: bool = False
    pixel_mean: tuple[float, float, float] = BYTE_MEAN
    pixel_std: tuple[float, float, float] = BYTE_STD
    output: Output = "sum"

    @property
    def quality(self) -> float:
        """Predicted quality from which automatic masks are kept by default (official generator)."""
        return QUALITY

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        if self.encoder not in get_args(EncoderKind):
            raise UsageError(f"encoder {self.encoder!r}: allowed are {', '.join(get_args(EncoderKind))}")
        for kind, part in (("vit", self.vit), ("tiny_vit", self.tiny_vit)):
            if (self.encoder == kind) != (part is not None):
                raise UsageError(f"encoder {self.encoder!r}: section '{kind}' is required for {kind}, and only for it")
        if self.image_size < 32 or self.image_size % 32:
            raise UsageError(f"image_size {self.image_size}: expected a multiple of 32")
        if self.prompt_dim % 8 or self.prompt_dim % (2 * self.decoder_heads):
            raise UsageError(f"prompt_dim {self.prompt_dim}: expected a multiple of 8 and of twice decoder_heads")
        if self.pad not in get_args(Pad) or self.output not in get_args(Output):
            raise UsageError(
                f"pad {self.pad!r}, output {self.output!r}: allowed {get_args(Pad)} and {get_args(Output)}"
            )
        if self.early_stride not in (4, 16) or (self.hq and self.hq_fusion and self.early_channels < 1):
            raise UsageError(
                f"early feature: stride {self.early_stride} (4 or 16), {self.early_channels} channels (> 0)"
            )
        if self.hq_mix and not self.hq_fusion:
            raise UsageError("hq_mix mixes the fused feature in: it needs hq_fusion")
        if (self.hq_pyramid and not self.hq_fusion) or (self.hq_pyramid and self.early_stride != 16):
            raise UsageError("hq_pyramid takes the place of the fusion: it needs hq_fusion, and early_stride 16")
        if (self.hq_pyramid and self.hq_mix) or (self.hq_attends and not self.hq):
            raise UsageError("hq_pyramid cannot be combined with hq_mix, and hq_attends needs the HQ branch (hq)")
        if self.context_tokens < 0 or self.adapter_dim < 0:
            raise UsageError(
                f"context_tokens {self.context_tokens}, adapter_dim {self.adapter_dim}: must not be negative"
            )
        if self.adapter_dim and self.encoder != "vit":
            raise UsageError(f"adapters stand in the blocks of a ViT, which the encoder '{self.encoder}' is not")
        if not self.hq and self.output != "sam":
            raise UsageError(f"output {self.output!r}: a network without the HQ branch has only 'sam'")

    @property
    def grid(self) -> int:
        """Cells of the embedding along one side of the square input."""
        return self.image_size // STRIDE

    def to_json(self) -> str:
        """The configuration as one line of JSON (kept in the metadata of safetensors files)."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None}, separators=(",", ":"))


def model_config_folder() -> Path:
    """Where the model YAML files are: inside the installed package, or beside it in a source tree."""
    packaged = Path(str(resources.files("vidseg"))) / "configs" / "models"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "configs" / "models"


def named_config(name: str) -> SamConfig:
    """The configuration of a model of ``configs/models`` (``sam-hq-vit-b``, ``compact``, ...)."""
    names = model_names()
    if name not in names:
        raise UsageError(f"unknown model {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}")
    return load_yaml(SamConfig, model_config_folder() / f"{name}.yaml")


def model_names() -> list[str]:
    """Names of the models of ``configs/models``."""
    return sorted(path.stem for path in model_config_folder().glob("*.yaml"))
