"""What a file of weights says of its network, and whether its tensors fit: all names there, all shapes equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vidseg.errors import WeightsError
from vidseg.options import from_mapping
from vidseg.weights.unwrap import some

C = TypeVar("C")

_DRAWING = {"normal_", "trunc_normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"}
"""Functions that draw initial weights in place."""


class NoInitialWeights(TorchFunctionMode):
    """Networks that are built in this context get no initial weights, because all of them are about to be replaced.

    Drawing them on the meta device would first import torch's compiler and sympy, which takes over a second.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


def config_from_metadata(cls: type[C], text: str, where: str) -> C:
    """The configuration (a dataclass) that our own files carry as JSON. ``where`` is the file, for the error.

    Raises:
        WeightsError: no JSON object, a key that this version does not know, or a value that cannot be.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"it is a {type(data).__name__}, not an object")
        return from_mapping(cls, data, where="config")
    except ValueError as error:  # as UsageError and WeightsError are
        raise WeightsError(f"{where}: its configuration cannot be read ({error})") from error


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state dict that lacks tensors, has others, or has one of another shape.

    Args:
        state: the tensors of a file.
        expected: those of the network (they may be on the meta device).
        where: the file, for the error.

    Raises:
        WeightsError: with the first names, or the first shape, that differ.
    """
    missing = [k for k in expected if k not in state]
    surplus = [k for k in state if k not in expected]
    if missing or surplus:
        parts = ((missing, "missing"), (surplus, "not known"))
        found = (f"{len(names)} tensors {what} ({some(names)})" for names, what in parts if names)
        raise WeightsError(f"{where} does not fit: {', '.join(found)}")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise WeightsError(f"{where}: {key!r} has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}")


def load_finished(module: nn.Module, state: Mapping[str, Tensor], where: str, is_new: Callable[[str], bool]) -> None:
    """Load the weights that a training starts from; tensors whose name ``is_new`` may be missing and stay.

    Raises:
        WeightsError: made for another network, with the first name or shape that differs.
    """
    for name, own in module.state_dict().items():
        if name in state and state[name].shape != own.shape:
            shapes = f"{tuple(state[name].shape)} there, {tuple(own.shape)} here"
            raise WeightsError(f"{where}: made for another network ({name} is {shapes})")
    result = module.load_state_dict(state, strict=False)
    lacking = [name for name in result.missing_keys if not is_new(name)]
    if wrong := result.unexpected_keys + lacking:
        raise WeightsError(f"{where}: made for another network (first difference: {wrong[0]})")
