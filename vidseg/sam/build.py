"""From a configuration or a weight file to a ready :class:`Sam`."""

from __future__ import annotations

from torch import nn

from vidseg.sam.config import SamConfig
from vidseg.sam.image_encoder import ImageEncoderViT
from vidseg.sam.model import Sam
from vidseg.sam.tiny_vit import TinyViT


def build_sam(config: SamConfig) -> Sam:
    """A network with PyTorch's initial weights. Under ``torch.device("meta")`` it costs no memory."""
    return Sam(config, _image_encoder(config))


def _image_encoder(config: SamConfig) -> nn.Module:
    if config.encoder == "vit":
        return ImageEncoderViT(config)
    if config.encoder == "tiny_vit":
        return TinyViT(config)
    from vidseg.sam.compact_encoder import CompactEncoder

    return CompactEncoder(out_channels=config.prompt_dim)
