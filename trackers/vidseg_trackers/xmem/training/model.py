"""The network a run starts from: ImageNet's trunk, keys from a whitening of its features; and the file it ends in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vidseg.atomic_files import atomic_file
from vidseg.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidseg.options import from_mapping
from vidseg.training.pretrained import load_imagenet
from vidseg_trackers.xmem.compact import CompactKeyEncoder
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.network import XMem
from vidseg_trackers.xmem.training.bank import Bank
from vidseg_trackers.xmem.training.sequences import SequenceOptions, make_sequence


def compact_config(dimensions: Mapping[str, Any]) -> XMemConfig:
    """An XMemConfig with compact encoders from the ``network`` section of a recipe."""
    return from_mapping(XMemConfig, {"encoder": "compact", **dimensions}, where="network")


def normalise(frames: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) -> float (..., 3, H, W), normalised with ImageNet's mean and std."""
    mean, std = (torch.tensor(v, device=frames.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((frames.float() / 255 - mean) / std).movedim(-1, -3)


@torch.no_grad()
def start_network(config: XMemConfig, bank: Bank, *, pretrained: bool, seed: int) -> XMem:
    """A network ready to train; with ``pretrained`` its keys match alike patches before the first step.

    Whitening makes the squared distance of keys a Mahalanobis distance of the trunk's features, which is already a
    usable similarity; learning starts from matching instead of from noise.
    """
    torch.manual_seed(seed)
    network = XMem(config)
    encoder = network.key_encoder
    if not pretrained or not isinstance(encoder, CompactKeyEncoder):
        return network
    load_imagenet(encoder.trunk)
    rng = np.random.default_rng(seed)
    options = SequenceOptions(size=256, length=2, clip_fraction=0.3)
    frames = np.stack([make_sequence(bank, options, 1, rng).frames[0] for _ in range(64)])
    images = normalise(torch.from_numpy(frames)) * encoder.scale + encoder.shift
    features = [encoder.trunk(chunk) for chunk in images.split(8)]
    s32 = torch.cat([f[3] for f in features]).transpose(0, 1).flatten(1)
    weight, bias = _whitening(s32, encoder.reduce.out_channels, power=0.5)
    encoder.reduce.weight.copy_(weight[:, :, None, None])
    _set_bias(encoder.reduce, bias)
    f16 = torch.cat([encoder(normalise(torch.from_numpy(chunk)))[0] for chunk in np.array_split(frames, 8)])
    weight, bias = _whitening(f16.transpose(0, 1).flatten(1), config.key_dim, power=0.15)
    projection = network.key_proj.key_proj
    projection.weight.zero_()
    projection.weight[:, :, 1, 1].copy_(weight * _KEY_SCALE)
    _set_bias(projection, bias * _KEY_SCALE)
    return network


#: Chosen by propagating masks of training clips with the untrained keys: sharper is better up to about here.
_KEY_SCALE = 2.5


def _whitening(samples: Tensor, dim: int, *, power: float) -> tuple[Tensor, Tensor]:
    """(C, n) samples -> weight (dim, C), bias (dim): leading components over variance**power, mean variance 1."""
    mean = samples.mean(1)
    centred = samples - mean[:, None]
    values, vectors = torch.linalg.eigh((centred @ centred.T) / samples.shape[1])
    values, vectors = values.flip(0)[:dim].clamp_min(1e-8), vectors.flip(1)[:, :dim]
    weight = (vectors * values**-power).T
    weight = weight / (weight @ centred).var(1).mean().sqrt()
    return weight, -weight @ mean


def _set_bias(conv: nn.Conv2d, bias: Tensor) -> None:
    if conv.bias is not None:
        conv.bias.copy_(bias)


def export_network(network: XMem, path: Path, provenance: Mapping[str, str]) -> None:
    """Write weights as float16 with the config and ``provenance`` in the metadata; replaces ``path`` at once."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_file(path) as file:
        file.write(save(tensors, {"config": network.config.to_json(), **provenance}))
