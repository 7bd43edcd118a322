"""Convolutions by tiles: the same numbers as the direct ones, wherever the image is cut; only where that is allowed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidseg.backbones import winograd as module
from vidseg.backbones.winograd import WinogradConv2d, winograd


@pytest.mark.parametrize(
    ("images", "height", "width", "room"),
    [(3, 30, 54, 1 << 17), (2, 41, 83, 1 << 17), (1, 5, 3, 1 << 17), (4, 16, 16, 500), (1, 3, 600, 100)],
    ids=["whole images together", "rows in parts", "less than two tiles", "kernels in parts", "a row of tiles"],
)
@pytest.mark.parametrize("relu", [False, True])
def test_tiles_give_the_numbers_of_the_direct_convolution(
    images: int, height: int, width: int, room: int, relu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROOM", room)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(images, 24, height, width), torch.randn(20, 24, 3, 3) / 15, torch.randn(20)
    for one in (bias, None):
        exact = F.conv2d(
            (F.relu(x) if relu else x).double(), weight.double(), None if one is None else one.double(), 1, 1
        )
        with torch.inference_mode():
            out = winograd(x, weight, one, relu)
        assert out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)


def test_rounding_is_close_to_that_of_the_direct_convolution() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 128, 24, 24), torch.randn(128, 128, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), None, 1, 1)
    errors = [
        float((y - exact).square().mean().sqrt()) for y in (winograd(x, weight, None), F.conv2d(x, weight, None, 1, 1))
    ]
    assert errors[0] < 3 * errors[1]  # the points 0, 1, -1, 2, -2 give 5 times


def test_only_large_images_without_gradients_in_float32_are_computed_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def count(x: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return winograd(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "winograd", count)
    conv, x = WinogradConv2d(96, 96, 3, padding=1), torch.randn(1, 96, 32, 36)
    conv(x)
    with torch.no_grad():
        conv(x[:, :, :16])
        WinogradConv2d(96, 96, 3, 2, 1)(x)
        WinogradConv2d(96, 1, 3, padding=1)(x)
        conv.to(torch.bfloat16)(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            conv.float()(x)
    assert not calls
    with torch.no_grad():
        conv.float()(x)
    assert calls == [(1, 96, 32, 36)]
