"""bfloat16 as a CPU with bfloat16 instructions computes it, on one without, where torch takes a hundred times as long.

Such instructions multiply bfloat16 numbers and sum in float32; the result is rounded once. So products, convolutions
and attention are computed here in float32 from operands that are bfloat16 numbers, and their results rounded. Only the
order of the sums differs, and the weights of attention are not rounded. All other operations are torch's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_PRODUCTS = {"addmm", "baddbmm", "bmm", "conv2d", "conv_transpose2d", "convolution", "einsum", "linear", "matmul", "mm"}
_ATTENTION = ("scaled_dot_product", "_scaled_dot_product")


class Bfloat16Products(TorchDispatchMode):
    """Within it, products of bfloat16 tensors on the CPU are computed in float32 and rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every operation of torch."""
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if not (name in _PRODUCTS or name.startswith(_ATTENTION)) or not _half(args):
            return func(*args, **kwargs)
        done = func(*tree_map(_widened, args), **tree_map(_widened, kwargs))
        if isinstance(done, tuple):  # what attention returns besides is float32 in any case
            return (done[0].to(torch.bfloat16), *done[1:])
        return done.to(torch.bfloat16)


def _half(args: tuple[Any, ...]) -> bool:
    return any(isinstance(a, Tensor) and a.dtype == torch.bfloat16 for a in tree_leaves(args))


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
