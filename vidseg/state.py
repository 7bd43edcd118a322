"""States of trackers and pipelines as one flat dictionary, parts of which have a prefix of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")


def nested(prefix: str, state: Mapping[str, V]) -> dict[str, V]:
    """The part of a state whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def prefixed(prefix: str, state: Mapping[str, V]) -> dict[str, V]:
    """A state with ``prefix`` before all its names; :func:`nested` takes it apart again."""
    return {prefix + name: value for name, value in state.items()}
