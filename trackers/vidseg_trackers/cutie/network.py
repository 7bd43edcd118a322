"""The Cutie network (Cheng et al., CVPR 2024, arXiv 2310.12982): what is learned, without any memory.

Per frame: :meth:`Cutie.encode_image`, then :meth:`Cutie.fuse` and :meth:`Cutie.read_objects` for what was read from
pixel memory, then :meth:`Cutie.segment`; on memory frames :meth:`Cutie.encode_mask`. All work on B images with N
objects each, in the dtype of the parameters. Shapes: h, w = H/16, W/16 (H and W must be multiples of 16). ``key``,
``shrinkage``, ``selection``, the sensory memory and the object memory are always float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.backbones.resnet import BasicBlock, Bottleneck, FrozenBatchNorm2d, stage
from vidseg_trackers.cutie.config import CutieConfig
from vidseg_trackers.cutie.modules import FusionBlock
from vidseg_trackers.cutie.object_transformer import ObjectSummarizer, ObjectTransformer
from vidseg_trackers.xmem.modules import (
    GroupResBlock,
    HiddenReinforcer,
    HiddenUpdater,
    add_per_image,
    conv_with_shared,
)
from vidseg_trackers.xmem.network import KeyProjection


class ImageFeatures(NamedTuple):
    """One look at an image. f16, f8, f4: the pixel encoder's; pixel: the pixel feature; all (B, C, ., .).

    image: the normalised image (B, 3, H, W); key, shrinkage (>= 1), selection (0..1): (B, C, h, w), float32.
    """

    image: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor
    pixel: Tensor
    key: Tensor
    shrinkage: Tensor
    selection: Tensor


class PixelEncoder(nn.Module):
    """ResNet-50 or ResNet-18 up to 1/16."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(64)
        if config.encoder == "resnet50":
            self.res2 = stage(Bottleneck, 64, 64, 3, 1)
            self.layer2 = stage(Bottleneck, 256, 128, 4, 2)
            self.layer3 = stage(Bottleneck, 512, 256, 6, 2)
        else:
            self.res2 = stage(BasicBlock, 64, 64, 2, 1)
            self.layer2 = stage(BasicBlock, 64, 128, 2, 2)
            self.layer3 = stage(BasicBlock, 128, 256, 2, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> f16, f8, f4."""
        f4 = self.res2(F.max_pool2d(self.bn1(self.conv1(image)).relu_(), 3, 2, 1))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class CutieKeyProjection(KeyProjection):
    """XMem's projection behind a 1x1 convolution of its own."""

    def __init__(self, in_dim: int, mid_dim: int, key_dim: int) -> None:
        super().__init__(mid_dim, key_dim)
        self.pix_feat_proj = nn.Conv2d(in_dim, mid_dim, 1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, h, w) -> key, shrinkage, selection, float32."""
        return super().forward(self.pix_feat_proj(f16))


class MaskEncoder(nn.Module):
    """ResNet-18 on image and masks, fused with the pixel feature: the value of a memory frame, one per object."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        dim = config.pixel_dim
        self.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(64)
        self.layer1 = stage(BasicBlock, 64, 64, 2, 1)
        self.layer2 = stage(BasicBlock, 64, 128, 2, 2)
        self.layer3 = stage(BasicBlock, 128, 256, 2, 2)
        self.fuser = FusionBlock(dim, 256, dim)
        self.sensory_update = HiddenReinforcer(dim, dim)

    def forward(self, image: Tensor, pixel: Tensor, masks: Tensor) -> Tensor:
        """Image (B, 3, H, W), pixel feature (B, C, h, w), masks (B*N, 2, H, W) -> values (B*N, C, h, w)."""
        x = F.relu(F.max_pool2d(self.bn1(conv_with_shared(self.conv1, image, masks)), 3, 2, 1))
        return self.fuser(pixel, self.layer3(self.layer2(self.layer1(x))))


class PixelFuser(nn.Module):
    """The pixel readout, the sensory memory and the last masks, fused with the pixel feature."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        dim = config.pixel_dim
        self.fuser = FusionBlock(dim, dim, dim)
        self.sensory_compress = nn.Conv2d(dim + 2, dim, 1)

    def forward(self, pixel: Tensor, readout: Tensor, sensory: Tensor, masks: Tensor) -> Tensor:
        """(B, C, h, w); (B*N, C, h, w) twice; masks (B*N, 2, h, w) -> (B*N, C, h, w)."""
        own = readout + self.sensory_compress(torch.cat([sensory, masks], 1).to(readout.dtype))
        return self.fuser(pixel, own)


class _SkipProjections(nn.Module):
    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        _, f8, f4 = config.feature_dims
        self.transforms = nn.ModuleList([nn.Conv2d(f8, config.pixel_dim, 1), nn.Conv2d(f4, config.up_dim, 1)])


class _UpBlock(nn.Module):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.out_conv = GroupResBlock(in_dim, out_dim, skip_size=1)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        up = F.interpolate(g, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out_conv(add_per_image(up, skip))


class MaskDecoder(nn.Module):
    """Readout and image features -> logits at 1/4, and the new sensory memory."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        dim, up = config.pixel_dim, config.up_dim
        self.sensory_update = HiddenUpdater(dim, up, up, dim, dim)
        self.decoder_feat_proc = _SkipProjections(config)
        self.up_16_8 = _UpBlock(dim, up)
        self.up_8_4 = _UpBlock(up, up)
        self.pred = nn.Conv2d(up, 1, 3, padding=1)

    def forward(
        self, features: ImageFeatures, readout: Tensor, sensory: Tensor, update_sensory: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (B*N, 1, 4h, 4w) and the sensory memory (B*N, C, h, w), updated when asked."""
        skip8, skip4 = self.decoder_feat_proc.transforms
        g8 = self.up_16_8(skip8(features.f8), readout)
        g4 = self.up_8_4(skip4(features.f4), g8)
        logits = self.pred(F.relu(g4))
        if update_sensory:
            sensory = self.sensory_update(readout, g8, g4, logits, sensory)
        return logits, sensory


class _Auxiliary(nn.Module):
    """The auxiliary prediction of the training; kept so that official files load completely."""

    def __init__(self, config: CutieConfig) -> None:
        super().__init__()
        self.sensory_aux = nn.Module()
        self.sensory_aux.projection = nn.Conv2d(config.pixel_dim, config.pixel_dim + 1, 1)


class Cutie(nn.Module):
    """The network of one :class:`CutieConfig`; parameters have the official names."""

    def __init__(self, config: CutieConfig | None = None) -> None:
        super().__init__()
        config = config or CutieConfig()
        self.config = config
        dim, f16 = config.pixel_dim, config.feature_dims[0]
        self.pixel_encoder = PixelEncoder(config)
        self.pix_feat_proj = nn.Conv2d(f16, dim, 1)
        self.key_proj = CutieKeyProjection(f16, dim, config.key_dim)
        self.mask_encoder = MaskEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.pixel_fuser = PixelFuser(config)
        self.object_transformer = ObjectTransformer(config)
        self.object_summarizer = ObjectSummarizer(config)
        self.aux_computer = _Auxiliary(config)

    def encode_image(self, image: Float[Tensor, "B 3 H W"]) -> ImageFeatures:
        """Look at images: RGB in 0..1, zero-padded to multiples of 16 (the padding is normalised with the rest)."""
        mean, std = (torch.tensor(v, device=image.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        image = ((image - mean) / std).to(self.pix_feat_proj.weight.dtype)
        f16, f8, f4 = self.pixel_encoder(image)
        return ImageFeatures(image, f16, f8, f4, self.pix_feat_proj(f16), *self.key_proj(f16))

    def encode_mask(
        self,
        features: ImageFeatures,
        sensory: Float[Tensor, "B N C h w"],
        masks: Float[Tensor, "B N H W"],
    ) -> tuple[Float[Tensor, "B N C h w"], Float[Tensor, "B N C h w"], Float[Tensor, "B N Q C+1"]]:
        """Encode a memory frame; ``masks`` are soft. Returns values, the new sensory memory, the object summaries."""
        others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
        pairs = torch.stack([masks, others], 2).to(features.image.dtype).flatten(0, 1)
        value = self.mask_encoder(features.image, features.pixel, pairs)
        new = self.mask_encoder.sensory_update(value, sensory.flatten(0, 1))
        value = value.unflatten(0, masks.shape[:2])
        return value, new.unflatten(0, masks.shape[:2]), self.object_summarizer(value, masks)

    def fuse(
        self,
        features: ImageFeatures,
        readout: Float[Tensor, "B N C h w"],
        sensory: Float[Tensor, "B N C h w"],
        masks: Float[Tensor, "B N H W"],
    ) -> Float[Tensor, "B N C h w"]:
        """What pixel memory says, with the image and the last ``masks`` of the objects given together."""
        last = F.interpolate(masks, readout.shape[-2:], mode="area")
        others = (last.sum(1, keepdim=True) - last).clamp(0, 1)
        pairs = torch.stack([last, others], 2).flatten(0, 1)
        fused = self.pixel_fuser(
            features.pixel, readout.flatten(0, 1).to(features.pixel.dtype), sensory.flatten(0, 1), pairs
        )
        return fused.unflatten(0, readout.shape[:2])

    def read_objects(
        self, fused: Float[Tensor, "B N C h w"], object_memory: Float[Tensor, "B N Q C1"]
    ) -> Float[Tensor, "B N C h w"]:
        """The readout steered by the object memory (sums over all memory frames)."""
        return self.object_transformer(fused, object_memory)

    def segment(
        self,
        features: ImageFeatures,
        readout: Float[Tensor, "B N C h w"],
        sensory: Float[Tensor, "B N C h w"],
        *,
        update_sensory: bool,
    ) -> tuple[Float[Tensor, "B N 4*h 4*w"], Float[Tensor, "B N C h w"]]:
        """Logits at 1/4 in float32, and the sensory memory (updated when asked)."""
        n = readout.shape[:2]
        logits, new = self.mask_decoder(features, readout.flatten(0, 1), sensory.flatten(0, 1), update_sensory)
        return logits.float().squeeze(1).unflatten(0, n), new.unflatten(0, n)
