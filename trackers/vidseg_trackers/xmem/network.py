"""The XMem network (Cheng & Schwing, ECCV 2022, arXiv 2207.07115): what is learned, without any memory.

Three calls per frame: :meth:`XMem.encode_key` for the image, :meth:`XMem.segment` for the objects, given what was read
from memory, and on memory frames :meth:`XMem.encode_value`. All three work on B images with N objects each, with
gradients (training, also under autocast) or without (tracking), in the dtype of the parameters.

Shapes: h, w = H/16, W/16 (H and W must be multiples of 16). The similarity is computed from ``key``, ``shrinkage`` and
``selection``, which are always float32; so is the sensory memory ``hidden`` and everything soft aggregation gives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.winograd import WinogradConv2d
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.modules import FeatureFusionBlock, HiddenUpdater, UpsampleBlock, ValueEncoder
from vidseg_trackers.xmem.resnet_encoders import ResNetKeyEncoder, ResNetValueEncoder


class KeyFeatures(NamedTuple):
    """One look at an image, (B, C, h, w) each: shrinkage >= 1, selection in 0..1; f8 and f4 are 2h and 4h high."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


class KeyProjection(nn.Module):
    """Key, shrinkage and selection from the features at 1/16 (section 3.2)."""

    def __init__(self, in_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = WinogradConv2d(in_dim, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(in_dim, 1, 3, padding=1)
        self.e_proj = WinogradConv2d(in_dim, key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, h, w) -> key, shrinkage = d^2 + 1, selection = sigmoid(e), in float32."""
        key = self.key_proj(f16).float()
        shrinkage = self.d_proj(f16).float().square() + 1
        return key, shrinkage, torch.sigmoid(self.e_proj(f16).float())


class TrunkValueEncoder(ValueEncoder):
    """Fuser and sensory update around the small trunk of ``compact.py``: a module called like :meth:`trunk`."""

    def __init__(self, config: XMemConfig) -> None:
        from vidseg_trackers.xmem import compact

        super().__init__(config)
        self.net = compact.CompactValueEncoder(config)

    def trunk(self, image: Tensor, masks: Tensor) -> Tensor:
        """See :class:`ValueEncoder`."""
        return self.net(image, masks)


class Decoder(nn.Module):
    """Memory readout, sensory memory and image features -> logits at 1/4, and the new sensory memory."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        own = config.value_dim + config.hidden_dim
        self.fuser = FeatureFusionBlock(config.f16_dim, own, config.g16_dim, config.g16_dim)
        self.hidden_update = (
            HiddenUpdater(config.g16_dim, config.g8_dim, config.g4_dim, config.sensory_dim, config.hidden_dim)
            if config.hidden_dim
            else None
        )
        self.up_16_8 = UpsampleBlock(config.f8_dim, config.g16_dim, config.g8_dim)
        self.up_8_4 = UpsampleBlock(config.f4_dim, config.g8_dim, config.g4_dim)
        self.pred = nn.Conv2d(config.g4_dim, 1, 3, padding=1)

    def forward(
        self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, hidden: Tensor | None, update_hidden: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B*N, 1, 4h, 4w) and the sensory memory, updated when asked."""
        own = readout.to(f16.dtype)
        if hidden is not None:
            own = torch.cat([own, hidden.to(f16.dtype)], 1)
        g16 = self.fuser(f16, own)
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(F.relu(g4))
        if update_hidden and self.hidden_update is not None and hidden is not None:
            hidden = self.hidden_update(g16, g8, g4, logits, hidden)
        return logits, hidden


class XMem(nn.Module):
    """The network of one :class:`XMemConfig`; parameters have the official names.

    ``compact.py`` gives the small encoders: ``CompactKeyEncoder(config)``, called with images (B, 3, H, W), returns
    (f16, f8, f4) of ``config.f16_dim``, ``f8_dim``, ``f4_dim`` channels; ``CompactValueEncoder(config)`` is called with
    images (B, 3, H, W) and masks (B*N, 2, H, W), returns (B*N, ``config.mask_dim``, H/16, W/16).
    """

    def __init__(self, config: XMemConfig | None = None) -> None:
        super().__init__()
        config = config or XMemConfig()
        self.config = config
        self.key_encoder: nn.Module
        self.value_encoder: ValueEncoder
        if config.encoder == "resnet":
            self.key_encoder = ResNetKeyEncoder()
            self.value_encoder = ResNetValueEncoder(config)
        else:
            from vidseg_trackers.xmem import compact

            self.key_encoder = compact.CompactKeyEncoder(config)
            self.value_encoder = TrunkValueEncoder(config)
        self.key_proj = KeyProjection(config.f16_dim, config.key_dim)
        self.decoder = Decoder(config)

    def encode_key(self, image: Float[Tensor, "B 3 H W"]) -> KeyFeatures:
        """Look at images: RGB, (x/255 - mean) / std with ImageNet's mean and std, zero-padded to multiples of 16."""
        own, others = next(self.key_encoder.parameters()).dtype, self.decoder.pred.weight.dtype
        if own == others:
            f16, f8, f4 = self.key_encoder(image)
        else:  # it is more precise than the rest
            f16, f8, f4 = (feature.to(others) for feature in self.key_encoder(image.to(own)))
        key, shrinkage, selection = self.key_proj(f16)
        return KeyFeatures(key, shrinkage, selection, f16, f8, f4)

    def encode_value(
        self,
        image: Float[Tensor, "B 3 H W"],
        f16: Float[Tensor, "B C h w"],
        hidden: Float[Tensor, "B N Ch h w"] | None,
        masks: Float[Tensor, "B N H W"],
        *,
        deep: bool = True,
    ) -> tuple[Float[Tensor, "B N Cv h w"], Float[Tensor, "B N Ch h w"] | None]:
        """Encode a memory frame: ``masks`` are soft (aggregated probabilities without background) or 0/1.

        Returns:
            The value of every object, and the sensory memory (updated when ``deep``; None without one).
        """
        pairs = torch.stack([masks, masks.sum(1, keepdim=True) - masks], 2).to(image.dtype)
        n = masks.shape[:2]
        flat = None if hidden is None else hidden.flatten(0, 1)
        value, flat = self.value_encoder(image, f16, flat, pairs.flatten(0, 1), deep)
        return value.unflatten(0, n), None if flat is None else flat.unflatten(0, n)

    def segment(
        self,
        features: KeyFeatures,
        readout: Float[Tensor, "B N Cv h w"],
        hidden: Float[Tensor, "B N Ch h w"] | None,
        *,
        update_hidden: bool = True,
    ) -> tuple[Float[Tensor, "B N 4*h 4*w"], Float[Tensor, "B N Ch h w"] | None]:
        """Segment the objects from what was read of memory.

        Returns:
            Logits at 1/4 of the image's size in float32 (see :func:`upsample_x4`, :func:`aggregate`), and the
            sensory memory (updated when ``update_hidden``).
        """
        n = readout.shape[:2]
        flat = None if hidden is None else hidden.flatten(0, 1)
        logits, flat = self.decoder(features.f16, features.f8, features.f4, readout.flatten(0, 1), flat, update_hidden)
        return logits.float().squeeze(1).unflatten(0, n), None if flat is None else flat.unflatten(0, n)

    def initial_hidden(self, features: KeyFeatures, objects: int) -> Float[Tensor, "B N Ch h w"] | None:
        """The sensory memory of new objects: zeros, float32; None when the network has none."""
        if not self.config.hidden_dim:
            return None
        b, _, h, w = features.key.shape
        return features.key.new_zeros(b, objects, self.config.hidden_dim, h, w)


def upsample_x4(logits: Float[Tensor, "B N h w"]) -> Float[Tensor, "B N 4*h 4*w"]:
    """Bilinear x4, from the decoder's resolution to the image's."""
    return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)


def aggregate(
    probabilities: Float[Tensor, "B N H W"], valid: Float[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N+1 H W"]:
    """Soft aggregation (section 3.1): background = product of (1 - p); logits whose softmax over dim 1 sums to one.

    Args:
        probabilities: 0..1 per object, independent of each other (or a hard mask).
        valid: 1 for real objects, 0 for the padding of a training batch; padded objects get probability 0.
    """
    p = probabilities.float()
    if valid is not None:
        p = p * valid[:, :, None, None]
    return _odds(p).log()


def aggregate_probabilities(probabilities: Float[Tensor, "B N H W"]) -> Float[Tensor, "B N+1 H W"]:
    """``softmax(aggregate(p), 1)`` without logarithm and exponential: the shares of the odds."""
    odds = _odds(probabilities)
    return odds.div_(odds.sum(1, keepdim=True))


def _odds(p: Tensor) -> Tensor:
    """p / (1 - p) of the background and the objects; clamped, so that they stay between 1e-7 and 1e7."""
    p = torch.cat([torch.prod(1 - p, 1, keepdim=True), p], 1).clamp(1e-7, 1 - 1e-7)
    return p / (1 - p)
