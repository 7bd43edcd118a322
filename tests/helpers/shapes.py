"""The checker that jaxtyping's import hook puts on functions: of shapes alone, mypy checks other types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def names_a_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(names_a_shape, get_args(hint)))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the function refuse tensors whose shapes or types of number are not those of its annotations."""
    hints = {name: hint for name, hint in function.__annotations__.items() if names_a_shape(hint)}
    if not hints:
        return function
    function.__annotations__ = hints
    return beartype(function)
