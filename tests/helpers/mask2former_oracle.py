"""Official numbers of Mask2Former for networks whose weights follow a rule of the key name, and that rule."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np

import paths
from vidseg.backbones.resnet import ResNetConfig
from vidseg.backbones.swin import SwinConfig
from vidseg_trackers.mask2former.config import ARCHITECTURES, Mask2FormerConfig
from vidseg_trackers.mask2former.network import Mask2Former
from xmem_rule import rule_tensor

FIXTURES = paths.FIXTURES / "mask2former"
TOY = Mask2FormerConfig(
    ResNetConfig((1, 1, 1, 1), 8), classes=5, queries=6, dim=32, encoder_layers=1, encoder_ffn=32, decoder_ffn=32
)
TOY_SWIN = replace(TOY, backbone=SwinConfig(16, (2, 2, 2, 1), (1, 2, 2, 4), 4))


def fill(network: Mask2Former, overrides: list[tuple[str, float]]) -> None:
    """Give every tensor the value of the rule, times the factors of the names it contains."""
    state = {k: rule_tensor(k, tuple(v.shape)) for k, v in network.state_dict().items()}
    for key, tensor in state.items():
        tensor *= math.prod(factor for part, factor in overrides if part in key)
    network.load_state_dict(state)
    network.eval().requires_grad_(False)


@cache
def vectors(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of one fixture file and the settings they were made with."""
    with np.load(FIXTURES / f"{name}.npz") as data:
        arrays = {k: data[k] for k in data.files}
    return arrays, json.loads(str(arrays.pop("meta")))


@cache
def oracle_network(name: str, architecture: str) -> Mask2Former:
    """The network of a fixture."""
    _, meta = vectors(name)
    network = Mask2Former(replace(ARCHITECTURES[architecture], queries=meta["queries"]))
    fill(network, meta["overrides"])
    return network


def toy_network(config: Mask2FormerConfig = TOY) -> Mask2Former:
    """Small, with random but fixed weights that tell queries and pixels apart."""
    network = Mask2Former(config)
    fill(network, [("query_", 12.0), ("class_embed.weight", 4.0), ("in_proj_weight", 2.0)])
    return network


def moving_waves(count: int, height: int, width: int, seed: int) -> list[np.ndarray]:
    """Frames uint8 (H, W, 3) of drifting sine waves: the input of the fixtures."""
    rng = np.random.RandomState(seed)
    k, p, s = rng.uniform(0.03, 0.25, (3, 6, 2)), rng.uniform(0, 6.283, (3, 6)), rng.uniform(-0.25, 0.25, 6)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    frames = []
    for t in range(count):
        angle = k[..., 0, None, None] * y + k[..., 1, None, None] * x + (p + s * t)[..., None, None]
        value = np.clip(0.5 + 0.08 * np.sin(angle).sum(1), 0, 1).astype(np.float32)
        frames.append((value * 255).round().astype(np.uint8).transpose(1, 2, 0).copy())
    return frames
