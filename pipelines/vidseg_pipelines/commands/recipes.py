"""Recipes of ``vidseg train``, each for the command that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from vidseg.errors import InputError, UsageError
from vidseg.options import load_yaml, parse_yaml
from vidseg.text import read_text

T = TypeVar("T")
Stage = Literal["hq", "base", "xmem"]


def load_recipe(cls: type[T], path: Path, stage: Stage) -> T:
    """The recipe ``path`` for ``vidseg train STAGE``.

    Raises:
        UsageError: as :func:`vidseg.options.load_yaml`, or a recipe of another ``vidseg train``, which is named.
    """
    try:
        made_for = _stage_of(parse_yaml(read_text(path)))
    except (InputError, ValueError):
        made_for = None  # load_yaml says it
    if made_for not in (None, stage):
        raise UsageError(f"{path}: a recipe for another training: vidseg train {made_for} --config {path}")
    return load_yaml(cls, path)


def _stage_of(recipe: Any) -> Stage | None:
    """What a recipe trains, by the options that no other kind has; None if that cannot be told."""
    if not isinstance(recipe, dict):
        return None
    if "stages" in recipe:
        return "xmem"
    if "loop" not in recipe:
        return None
    network = recipe.get("network")
    has_hq = network.get("hq", True) if isinstance(network, Mapping) else True
    return "hq" if has_hq or any(name in recipe for name in ("learn", "lora", "adapters", "context_tokens")) else "base"
