"""Half precision as a device with instructions for it computes it, on a CPU without, where torch takes far longer.

Such instructions multiply two numbers of 16 bits and sum in float32; the result is rounded once. So products,
convolutions and attention are computed here in float32 from operands that are bfloat16 or float16 numbers, and their
results rounded. Only the order of the sums differs, and the weights of attention are not rounded. All other operations
are torch's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DTYPES = ("float32", "bfloat16", "float16")
"""What can be measured."""
_HALF = (torch.bfloat16, torch.float16)
_PRODUCTS = {"addmm", "baddbmm", "bmm", "conv2d", "conv_transpose2d", "convolution", "einsum", "linear", "matmul", "mm"}
_ATTENTION = ("scaled_dot_product", "_scaled_dot_product")


def rounded(dtype: str) -> contextlib.AbstractContextManager[object]:
    """Where everything that is ``dtype`` is computed as described above; float32 is computed as always."""
    return contextlib.nullcontext() if dtype == "float32" else _RoundedProducts()


class _RoundedProducts(TorchDispatchMode):
    """Within it, products of tensors in half precision on the CPU are computed in float32 and rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every operation of torch."""
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        half = _half(args) if name in _PRODUCTS or name.startswith(_ATTENTION) else None
        if half is None:
            return func(*args, **kwargs)
        done = func(*tree_map(_widened, args), **tree_map(_widened, kwargs))
        if isinstance(done, tuple):  # what attention returns besides is float32 in any case
            return (done[0].to(half), *done[1:])
        return done.to(half)


def _half(args: tuple[Any, ...]) -> torch.dtype | None:
    return next((a.dtype for a in tree_leaves(args) if isinstance(a, Tensor) and a.dtype in _HALF), None)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value
