"""What a file of weights says of its network, and whether its tensors fit: all names there, all shapes equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from vidseg.errors import WeightsError
from vidseg.options import from_mapping
from vidseg.weights.unwrap import some

C = TypeVar("C")


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
