"""Weights, pictures and masks of the SAM 2 test networks: rules of names and seeds, no files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import paths
from vidseg.sam2.config import Sam2Config
from vidseg.sam2.model import Sam2

FIXTURES = paths.FIXTURES / "sam2"
_HALF = ("pos_embed", "pos_embed_window", "maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "gamma")


class Case:
    """One of the official runs: its description, and arrays of which every so many elements are kept."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(FIXTURES / f"{name}.npz")
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def difference(self, name: str, got: torch.Tensor) -> float:
        """Largest difference from the official array."""
        ours = got.float().numpy().ravel()[:: self.meta["stride"][name]]
        return float(np.abs(ours - self.arrays[name]).max())

    def network(self) -> Sam2:
        name = self.meta["base_config"].split("/")[-1].removesuffix(".yaml")
        config = Sam2Config.official(name, self.meta["overrides"])
        return rule_sam2(config, self.meta.get("weight_scale", {}), self.meta.get("weight_add", {}))


def rule_sam2(config: Sam2Config, scale: Mapping[str, float] = {}, add: Mapping[str, float] = {}) -> Sam2:
    """A network whose every tensor follows from its name, then ``scale`` and ``add`` by name."""
    with torch.device("meta"):
        network = Sam2(config)
    network.to_empty(device="cpu")
    state = {key: _tensor(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    for key, factor in scale.items():
        state[key] = state[key] * factor
    for key, number in add.items():
        state[key] = state[key] + number
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape))).reshape(shape)
    leaf = key.split(".")[-1]
    if leaf in _HALF:
        n = 0.5 * n
    elif len(shape) == 1:
        n = 1 + 0.2 * n if leaf == "weight" else 0.1 * n
    elif len(shape) == 2 and shape[0] <= 4:
        n = n / np.sqrt(shape[1]) if "layers" in key else n
    elif leaf != "positional_encoding_gaussian_matrix":
        n = 1.2 * n / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


def frame(seed: int, t: int, height: int, width: int) -> np.ndarray:
    """Waves, two moving discs and noise: uint8 RGB."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    channels = [
        (_wave((3 + c) * x + (2 + 2 * c) * y + 5 * t + 7 * seed, 90 + 17 * c) + _wave(4 * y - (1 + c) * x + 3 * t, 61))
        // 2
        for c in range(3)
    ]
    image = np.stack(channels, -1)
    texture = _wave(x + 2 * y, 23) // 8 - 16
    for number, colour in enumerate([(230, 60, 40), (30, 90, 220)]):
        inside = disc(seed, t, height, width, number)
        image[inside] = (np.array(colour) + texture[..., None])[inside]
    noise = np.random.RandomState(1000 * seed + t).randint(-12, 13, (height, width, 3))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def disc(seed: int, t: int, height: int, width: int, number: int, radius: int | None = None) -> np.ndarray:
    """The mask of one of the discs of :func:`frame`."""
    y, x = np.mgrid[:height, :width]
    cx = width // 4 + (2 + number) * t + 11 * number + seed % 5
    cy = height // 3 + (height // 3) * number + (t if number == 0 else -t)
    radius = radius or (height // 7 if number else height // 5)
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


def _wave(u: np.ndarray, period: int) -> np.ndarray:
    return np.abs(u % (2 * period) - period) * 255 // period
