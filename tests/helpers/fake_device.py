"""An accelerator where there is none: computes on the CPU, knows what lies on it, counts who waits for it.

Real accelerators compute while the host goes on. The host waits where it asks for a number or for the size of an
answer, where it brings a tensor home, and where it sends one without ``non_blocking``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("xpu")
_ASKS = {
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "nonzero",
    "masked_select",
    "unique",
    "equal",
}
_IN_PYTHON = {"embedding_bag"}
"""Functions that make tensors of their own on the device."""

M = TypeVar("M", bound=nn.Module)


class OnDevice(Tensor):
    """A tensor that lies on the fake device."""

    device = DEVICE  # type: ignore[assignment]


class FakeDevice(TorchFunctionMode):
    """While active, tensors can be made on and sent to :data:`DEVICE`; ``waits`` counts by name who waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        here = any(isinstance(leaf, OnDevice) for leaf in leaves)
        if name == "__get__":  # of attributes, such as the device
            return func(*args, **kwargs)
        if name == "cpu" or (name == "to" and any(leaf == torch.device("cpu") for leaf in leaves if _is_device(leaf))):
            self.waits["to the host"] += here
            return args[0].as_subclass(Tensor)
        if name == "to" and any(leaf == DEVICE for leaf in leaves if _is_device(leaf)):
            if not here:
                self.waits["to the device"] += not kwargs.get("non_blocking", False)
            return args[0].as_subclass(OnDevice)
        if here and name in ("numpy", "__array__"):
            raise TypeError("can't convert a tensor of the fake device to numpy")
        strangers = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, OnDevice) and x.ndim]
        if here and strangers and name not in ("__set__",):
            raise RuntimeError(f"{name}: tensors on two devices")
        if here and (name in _ASKS or _by_mask(name, args)):
            self.waits[name] += 1
        made_here = any(leaf == DEVICE for leaf in leaves if _is_device(leaf))
        if made_here:
            if name in ("tensor", "as_tensor"):
                self.waits[name] += 1  # its numbers are sent
            args, kwargs = tree_map(lambda x: torch.device("cpu") if _is_device(x) else x, (args, kwargs))
        if here and name in _IN_PYTHON:
            args, kwargs = tree_map(lambda x: x.as_subclass(Tensor) if isinstance(x, Tensor) else x, (args, kwargs))
        result = func(*args, **kwargs)
        return tree_map(_put, result) if made_here or here else result


def on_device(module: M) -> M:
    """The module with its parameters and buffers on the fake device."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(_put(parameter.detach()), requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, _put(buffer))
    return module


def _put(value: Any) -> Any:
    return value.as_subclass(OnDevice) if isinstance(value, Tensor) else value


def _is_device(value: object) -> bool:
    return isinstance(value, torch.device)


def _by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Is this ``tensor[mask]``, whose size depends on the numbers, or an index that is sent?"""
    if name not in ("__getitem__", "__setitem__"):
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(i, list) or (isinstance(i, Tensor) and i.dtype == torch.bool) for i in index)
