"""The named tensors of one network in what a training loop saved: dictionaries in dictionaries, prefixes of names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vidseg.errors import WeightsError

L = TypeVar("L")

_MAIN = ("model", "state_dict", "model_state_dict", "net", "network", "module")
"""Keys that mean the network itself where others (an average, a teacher, moments of the optimizer) fit too."""

_WRAPPING_MODULES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any place."""

_DEPTH = 2
_PREFIXES = 3


@dataclass(frozen=True)
class ExpectedNetwork:
    """A kind of network that a file is expected to hold: what it is called, and whether names are those of one."""

    name: str
    fits: Callable[[Collection[str]], bool]

    @classmethod
    def of_parts(cls, name: str, *parts: str) -> ExpectedNetwork:
        """A network whose names begin with every one of ``parts``."""
        return cls(name, lambda names: set(parts) <= {key.partition(".")[0] for key in names})


def unwrap(
    content: object,
    path: Path,
    leaf: type[L] | tuple[type[L], ...],
    network: ExpectedNetwork | None = None,
    *,
    named: str = "named tensors",
    complaint: str = "not a tensor: this is not a file of weights",
) -> dict[str, L]:
    """The dictionary of names to ``leaf`` in ``content``, which is such a dictionary or holds it, at most two deep.

    Of several dictionaries the one that fits ``network`` is taken. A prefix that stands before all names
    (``module.``, ``model.``, ``sam.``, ...) is removed where what is left fits; without ``network``, ``module.`` is.
    ``named`` and ``complaint`` are for errors: what is expected, and what is wrong with a value of another type.

    Raises:
        WeightsError: no such dictionary, or several that fit.
    """
    found = {} if not isinstance(content, dict) else dict(_dictionaries(content, leaf))
    if not found:
        inner = (
            next((content[key] for key in _MAIN if key in content), content) if isinstance(content, dict) else content
        )
        if not isinstance(inner, dict) or not inner:
            raise WeightsError(f"{path} holds {type(inner).__name__} instead of {named}")
        wrong = [str(k) for k, v in inner.items() if not (isinstance(k, str) and isinstance(v, leaf))]
        raise WeightsError(f"{path}: {some(wrong)} {complaint}")
    found = {trail: _plain_names(part, path) for trail, part in found.items()}
    if network is None:
        fitting = found
    else:
        fitting = {trail: fitted for trail, part in found.items() if (fitted := _fitted(part, network)) is not None}
    chosen = _chosen(fitting or found)
    if chosen is None:
        what = network.name if network is not None else "a network"
        number = f"{len(fitting)} of its parts are" if fitting else "none of its parts is"
        parts = ", ".join(f"{'.'.join(trail)} ({some(_heads(part))})" for trail, part in (fitting or found).items())
        raise WeightsError(f"{path}: {number} {what}: {parts}; save the one that is meant in a file of its own")
    if network is None and all(name.startswith("module.") for name in chosen):
        return {name.removeprefix("module."): value for name, value in chosen.items()}
    return chosen


def some(names: list[str], limit: int = 3) -> str:
    """The first few of ``names``, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(n) for n in names[:limit]) + more


def _dictionaries(
    content: dict[Any, Any], leaf: type[L] | tuple[type[L], ...], trail: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, L]]]:
    if content and all(isinstance(k, str) and isinstance(v, leaf) for k, v in content.items()):
        yield trail, content
    elif len(trail) < _DEPTH:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from _dictionaries(value, leaf, (*trail, str(key)))


def _chosen(found: dict[tuple[str, ...], dict[str, L]]) -> dict[str, L] | None:
    """The only one, or the one under the first of the names of the network itself."""
    if len(found) == 1:
        return next(iter(found.values()))
    for main in _MAIN:
        under = [part for trail, part in found.items() if main in trail]
        if len(under) == 1:
            return under[0]
    return None


def _plain_names(part: dict[str, L], path: Path) -> dict[str, L]:
    renamed: dict[str, L] = {}
    for key, value in part.items():
        name = key
        for module in _WRAPPING_MODULES:
            name = name.replace(module, "")
        if name in renamed:
            raise WeightsError(f"{path}: two tensors for '{name}'")
        renamed[name] = value
    return renamed


def _fitted(part: dict[str, L], network: ExpectedNetwork) -> dict[str, L] | None:
    """``part`` without the prefix before all its names that keeps it from being a ``network``; None if none does."""
    for _ in range(_PREFIXES + 1):
        if network.fits(part.keys()):
            return part
        heads = _heads(part)
        if len(heads) != 1 or not all("." in name for name in part):
            return None
        part = {name.partition(".")[2]: value for name, value in part.items()}
    return None


def _heads(part: dict[str, L]) -> list[str]:
    return sorted({name.partition(".")[0] for name in part})
