"""Small layers that several networks share. They work on channels-last data, which is fast on CPUs and GPUs."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of every pixel of an NCHW tensor (biased variance)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        """``channels``: C."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def last(self, x: Tensor) -> Tensor:
        """The same on (..., C)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Normalise; the result lies channels-last in memory."""
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Linear layers with ReLU between; no activation at the end."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        """``dims``: width before the first layer, between layers and after the last."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """Apply the layers."""
        for i, layer in enumerate(self.layers):
            x = layer(F.relu(x)) if i else layer(x)
        return x


def _transposed_2x2(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 2x2 stride-2 transposed convolution as one matrix product: (..., i) -> (..., 4, o), 4 = row * 2 + column."""
    i, o = conv.in_channels, conv.out_channels
    weight = conv.weight.permute(2, 3, 1, 0).reshape(4 * o, i)
    bias = cast(Tensor, conv.bias).repeat(4)
    return F.linear(x, weight, bias).unflatten(-1, (4, o))


class Upscaler(nn.Sequential):
    """Two 2x2 stride-2 transposed convolutions with LayerNorm2d and GELU between: four times the resolution.

    Both convolutions never mix neighbouring inputs, so the whole stack runs on one pixel at a time: the 16 output
    pixels of an input pixel stay together ("cells") until :func:`cells_to_image` puts them in their place.
    """

    def __init__(self, dim_in: int, dim_mid: int, dim_out: int, last_gelu: bool = False) -> None:
        """Children 0, 1 and 3 carry parameters, as in the official state dicts."""
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(dim_in, dim_mid, 2, 2),
            LayerNorm2d(dim_mid),
            nn.GELU(),
            nn.ConvTranspose2d(dim_mid, dim_out, 2, 2),
        ]
        super().__init__(*layers, *([nn.GELU()] if last_gelu else []))
        self.last_gelu = last_gelu

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n 4 4 o"]:
        """Cells: axes -3 and -2 are the (row, column) pair of the first and of the second step."""
        x = _transposed_2x2(cast(nn.ConvTranspose2d, self[0]), x)
        x = F.gelu(cast(LayerNorm2d, self[1]).last(x))
        x = _transposed_2x2(cast(nn.ConvTranspose2d, self[3]), x)
        return F.gelu(x) if self.last_gelu else x


def cells_to_image(
    cells: Float[Tensor, "n hw 4 4 c"], height: int, width: int, channels_last: bool = False
) -> Float[Tensor, "n c H W"]:
    """Put the cells of :class:`Upscaler` in their place: (N, h*w, 4, 4, C) -> (N, C, 4h, 4w).

    ``channels_last`` chooses the memory layout of the result, not its axes.
    """
    x = cells.unflatten(3, (2, 2)).unflatten(2, (2, 2)).unflatten(1, (height, width))
    if channels_last:
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3).permute(0, 3, 1, 2)
    return x.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)


def sam_neck(dim_in: int, dim_out: int) -> nn.Sequential:
    """The last layers of the official encoders of Segment Anything: (B, dim_in, h, w) -> (B, dim_out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(dim_in, dim_out, 1, bias=False),
        LayerNorm2d(dim_out),
        nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False),
        LayerNorm2d(dim_out),
    )


def to_windows(x: Float[Tensor, "b h w c"], size: int) -> Float[Tensor, "bn s s c"]:
    """Zero-pad right and bottom to a multiple of ``size`` and cut into windows, row by row."""
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, (size - w % size) % size, 0, (size - h % size) % size))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.view(b, rows, size, columns, size, c).transpose(2, 3)
    return x.reshape(b * rows * columns, size, size, c)


def from_windows(windows: Float[Tensor, "bn s s c"], height: int, width: int) -> Float[Tensor, "b h w c"]:
    """Undo :func:`to_windows`."""
    size, c = windows.shape[1], windows.shape[3]
    rows, columns = (height + size - 1) // size, (width + size - 1) // size  # ONNX divides towards zero
    x = windows.view(-1, rows, columns, size, size, c).transpose(2, 3)
    return x.reshape(-1, rows * size, columns * size, c)[:, :height, :width]
