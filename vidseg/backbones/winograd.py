"""3x3 convolutions with a quarter of the multiplications (Winograd's minimal filtering, F(4x4, 3x3)), on a CPU.

The input is cut into tiles of 6x6 that overlap by 2. A tile and the kernel are transformed, multiplied element by
element, which summed over the channels is one matrix product for each of the 36 elements, and transformed back into
4x4 outputs (Lavin & Gray, CVPR 2016, arXiv 1509.09308). The transforms evaluate polynomials; at 0, 3/4, -3/4, 3/2,
-3/2 and infinity they round hardly worse than the direct convolution (relative error 1.1e-6 instead of 0.8e-6 at 256
channels; 2.5e-6 with the usual 0, 1, -1, 2, -2).
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_OUT, _IN = 4, 6
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
_LEAST_CHANNELS, _LEAST_TILES = 96, 64
"""With fewer, the transforms take longer than what the products save."""
_ROOM = 1 << 17
"""Most kernels (inputs times outputs) that are transformed at once: 19 MB."""


class WinogradConv2d(nn.Conv2d):
    """``nn.Conv2d`` with zero padding, without dilation and groups, computed by :func:`convolve`."""

    def forward(self, input: Tensor, relu: bool = False) -> Tensor:
        """(n, C, h, w) -> (n, D, h', w'); ``relu`` of the input first."""
        return convolve(self, input, self.weight, self.bias, relu)


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False) -> Tensor:
    """``conv`` with another weight and bias, of ``relu(x)`` where asked; by tiles where that is faster."""
    same = conv.kernel_size == (3, 3) and conv.stride == conv.padding == (1, 1)
    if same and _worth_it(x, weight):
        return winograd(x, weight, bias, relu)
    return F.conv2d(F.relu(x) if relu else x, weight, bias, conv.stride, conv.padding)


def _worth_it(x: Tensor, weight: Tensor) -> bool:
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32 or x.ndim != 4:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    tiles = x.shape[0] * -(-x.shape[2] // _OUT) * -(-x.shape[3] // _OUT)
    return min(weight.shape[:2]) >= _LEAST_CHANNELS and tiles >= _LEAST_TILES


def winograd(
    x: Float[Tensor, "n C h w"], weight: Float[Tensor, "D C 3 3"], bias: Float[Tensor, " D"] | None, relu: bool = False
) -> Float[Tensor, "n D h w"]:
    """``conv2d(x, weight, bias, padding=1)`` in float32, channels last; of ``relu(x)`` where asked."""
    n, c, height, width = x.shape
    down, right = -(-height // _OUT), -(-width // _OUT)
    # what a part of the input needs stays in the cache; small images go together
    limit = max(128, len(weight) // 2)
    images = min(n, max(1, limit // (down * right)))
    rows = min(down, max(1, limit // right))
    step = max(1, _ROOM // c)
    groups = weight.split(step)
    room = _Room(x, images * rows * right, c, min(step, len(weight)))
    window = x.new_zeros(images, _OUT * rows + 2, _OUT * right + 2, c)
    out = x.new_empty(n, down, _OUT, right, _OUT, len(weight))
    kernels = room.kernels(groups[0])
    for first in range(0, n, images):
        pixels = x[first : first + images].permute(0, 2, 3, 1)
        for low in range(0, height, _OUT * rows):
            high = min(low + _OUT * rows, height)
            top, bottom = max(0, low - 1), min(high + 1, height)
            window[: len(pixels), top - low + 1 : bottom - low + 1, 1 : 1 + width] = pixels[:, top:bottom]
            window[:, bottom - low + 1 :] = 0
            if relu:
                window.clamp_(min=0)
            if low == 0:
                window[:, 0] = 0
            part = out[first : first + images, low // _OUT : low // _OUT + rows]
            tiles = room.tiles(window[: len(pixels), : _OUT * part.shape[1] + 2])
            done = 0
            for group in groups:
                kernels = kernels if len(groups) == 1 else room.kernels(group)
                own = None if bias is None else bias[done : done + len(group)]
                room.outputs(tiles, kernels, own, part[..., done : done + len(group)])
                done += len(group)
    whole = out.view(n, _OUT * down, _OUT * right, len(weight))[:, :height, :width]
    return whole.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class _Room:
    """Memory that all parts of an input use in turn: fresh pages would take as long as the products."""

    def __init__(self, x: Tensor, tiles: int, c: int, d: int) -> None:
        area = _IN * _IN
        self._tiles, self._transformed, self._kernels, self._products, self._outputs = (
            x.new_empty(size)
            for size in (area * tiles * c, area * tiles * c, area * c * d, area * tiles * d, _OUT * _OUT * tiles * d)
        )

    def kernels(self, weight: Float[Tensor, "D C 3 3"]) -> Float[Tensor, "36 C D"]:
        """Transformed kernels."""
        d, c = weight.shape[:2]
        return _products(_transforms()[1], weight.permute(0, 2, 3, 1).reshape(d, 9, c), self._kernels).permute(1, 2, 0)

    def tiles(self, window: Float[Tensor, "n h w C"]) -> Float[Tensor, "36 t C"]:
        """Transformed tiles of padded images."""
        tiles = window.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT).permute(0, 1, 2, 4, 5, 3)
        flat = self._tiles[: tiles.numel()].view(-1, _IN * _IN, window.shape[-1])
        flat.view(tiles.shape).copy_(tiles)
        return _products(_transforms()[0], flat, self._transformed).transpose(0, 1)

    def outputs(
        self,
        tiles: Float[Tensor, "36 t C"],
        kernels: Float[Tensor, "36 C D"],
        bias: Float[Tensor, " D"] | None,
        out: Float[Tensor, "n h 4 w 4 D"],
    ) -> None:
        """Write the outputs of all tiles of ``out``."""
        count, d = tiles.shape[1], kernels.shape[-1]
        products = self._products[: len(tiles) * count * d].view(len(tiles), count, d)
        torch.bmm(tiles, kernels, out=products)
        outputs = self._outputs[: _OUT * _OUT * count * d].view(_OUT * _OUT, -1)
        outputs = torch.mm(_transforms()[2], products.flatten(1), out=outputs).view(-1, count, d)
        if bias is not None:
            outputs += bias
        n, h, _, w = out.shape[:4]
        out.copy_(outputs.view(_OUT, _OUT, n, h, w, d).permute(2, 3, 0, 4, 1, 5))


def _products(
    matrix: Float[Tensor, "36 k"], columns: Float[Tensor, "n k C"], room: Float[Tensor, " m"]
) -> Float[Tensor, "n 36 C"]:
    """The matrix times every square: one at a time they stay in the cache, all at once they do not."""
    shape = len(columns), len(matrix), columns.shape[2]
    return torch.bmm(matrix.expand(len(columns), *matrix.shape), columns, out=room[: prod(shape)].view(shape))


@lru_cache(maxsize=1)
def _transforms() -> tuple[Float[Tensor, "36 36"], Float[Tensor, "36 9"], Float[Tensor, "16 36"]]:
    """Of tiles, kernels and outputs, as matrices for flattened 6x6, 3x3 and 4x4 squares (Toom and Cook)."""
    points = torch.tensor(_POINTS, dtype=torch.float64)
    powers = torch.stack([points**k for k in range(_OUT)], 1)  # (5, 4)
    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    scale = torch.tensor([[prod(p - q for q in rest)] for p, rest in zip(_POINTS, others, strict=True)]).double()
    last = torch.eye(_OUT, dtype=torch.float64)[-1:]
    kernel = torch.cat([powers[:, :3] / scale, last[:, -3:]])
    output = torch.cat([powers, last]).T
    tile = torch.tensor([_polynomial(roots) for roots in (*others, list(_POINTS))], dtype=torch.float64)
    tile, kernel, output = (torch.kron(m, m).float() for m in (tile, kernel, output))
    return tile, kernel, output


def _polynomial(roots: list[float]) -> list[float]:
    """Coefficients of the product of ``x - root``, lowest first, filled up to six."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [*(-root * c for c in coefficients), 0.0]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients + [0.0] * (_IN - len(coefficients))
