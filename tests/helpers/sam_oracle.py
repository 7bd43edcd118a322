"""Official numbers of SAM and HQ-SAM for networks whose weights follow a rule of the key name, and that rule."""

from __future__ import annotations

import math
import zlib
from functools import cache

import numpy as np
import torch
from torch import nn

import paths
from vidseg.backbones.tiny_vit import TinyVitConfig
from vidseg.sam.build import build_sam
from vidseg.sam.config import SamConfig, VitConfig

FIXTURES = paths.FIXTURES / "hqsam"

MINI_VIT = SamConfig(
    encoder="vit",
    vit=VitConfig(embed_dim=48, depth=4, num_heads=3, global_blocks=(1, 3)),
    image_size=256,
    prompt_dim=64,
    early_channels=48,
    decoder_mlp_dim=128,
    iou_hidden_dim=64,
)
MINI_TINY = SamConfig(
    encoder="tiny_vit",
    tiny_vit=TinyVitConfig((16, 24, 32, 320), (1, 1, 2, 1), (2, 2, 4, 10), num_classes=10),
    early_channels=32,
)


def rule_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The value of a tensor of a test network: from its official key and shape alone."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(math.prod(shape)).reshape(shape)
    if key.endswith("running_var"):
        n = 0.5 + np.abs(n)
    elif key.endswith("running_mean"):
        n = 0.2 * n
    elif key.endswith("positional_encoding_gaussian_matrix"):
        pass
    elif key.endswith(("rel_pos_h", "rel_pos_w")):
        n = 0.3 * n
    elif key.endswith(("pos_embed", "attention_biases")):
        n = 0.5 * n
    elif len(shape) == 1:
        n = 1 + 0.2 * n if key.endswith("weight") else 0.1 * n
    elif len(shape) == 2 and shape[0] <= 4:
        n = n / math.sqrt(shape[1]) if "layers" in key else n
    else:
        n = 1.2 * n / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


def fill(module: nn.Module, prefix: str = "") -> None:
    """Give every tensor of ``module`` the value of the rule."""
    state = {k: rule_tensor(prefix + k, tuple(v.shape)) for k, v in module.state_dict().items()}
    module.load_state_dict(state, strict=True)
    module.eval().requires_grad_(False)


@cache
def vectors(name: str) -> dict[str, np.ndarray]:
    """The arrays of one fixture file."""
    with np.load(FIXTURES / f"{name}.npz") as data:
        return {k: data[k] for k in data.files}


def rule_image(height: int, width: int) -> np.ndarray:
    """The RGB image of the fixtures."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    smooth = [127 + 90 * np.sin(x / 17 + c) + 30 * np.cos(y / (9 + c)) for c in range(3)]
    noise = np.random.RandomState(7).standard_normal((height, width, 3)) * 8
    return np.clip(np.stack(smooth, -1) + noise, 0, 255).astype(np.uint8)


def prompts(size: int) -> dict[str, dict[str, torch.Tensor]]:
    """The prompts of the fixtures, in pixels of the resized image."""
    boxes = torch.tensor([[0.10, 0.15, 0.70, 0.60], [0.3, 0.2, 0.9, 0.7]]) * size
    points = torch.tensor([[[0.2, 0.3], [0.5, 0.5], [0.1, 0.6]]]) * size
    mask = np.random.RandomState(11).standard_normal((1, 1, size // 4, size // 4)) * 5
    return {
        "box": {"boxes": boxes},
        "points": {"points": points, "labels": torch.tensor([[1, 1, 0]])},
        "box_points": {"boxes": boxes[:1], "points": points[:, :2], "labels": torch.tensor([[1, 0]])},
        "mask": {"masks": torch.from_numpy(mask.astype(np.float32))},
        "none_point": {"points": points[:, :1], "labels": torch.tensor([[-1]])},
    }


def mini_state() -> dict[str, torch.Tensor]:
    """A whole small HQ-SAM under official names."""
    with torch.device("meta"):
        sam = build_sam(MINI_VIT)
    return {k: rule_tensor(k, tuple(v.shape)) for k, v in sam.state_dict().items()}


def difference(got: torch.Tensor, want: np.ndarray) -> float:
    """Largest absolute difference; large fixtures hold every 61st value of the flattened array."""
    flat = got.detach().float().numpy()
    if flat.size > 6000 and want.ndim == 1:
        flat = flat.reshape(-1)[::61]
    assert flat.shape == want.shape, (flat.shape, want.shape)
    return float(np.abs(flat - want).max(initial=0.0))
