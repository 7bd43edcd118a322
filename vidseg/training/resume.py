"""What a checkpoint says of how it was made, and whether a training may go on from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseg.atomic_files import atomic_file
from vidseg.errors import UsageError
from vidseg.names import printable

CHECKPOINT = "last.pt"
"""What a training goes on from, in its folder."""
LOG = "log.jsonl"
"""The log of a training in its folder: one JSON object per line."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names such as ``loop.lr``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def dump_recipe(recipe: Mapping[str, Any] | None) -> str:
    """A recipe as text for a checkpoint; empty without one."""
    return "" if recipe is None else json.dumps(recipe, default=str, sort_keys=True)


def check_recipe(path: Path, text: object, recipe: Mapping[str, Any] | None) -> None:
    """Refuse to continue the checkpoint ``path``, made by the recipe ``text``, with another ``recipe``.

    Settings that only one of the two knows are of another version of the program and are not compared.

    Raises:
        UsageError: names the first differences.
    """
    if recipe is None:
        return
    try:
        old = json.loads(text) if isinstance(text, str) and text else None
    except ValueError:
        old = None
    if not isinstance(old, dict):
        logging.getLogger("vidseg").warning("%s does not say how it was made: going on unchecked", printable(str(path)))
        return
    new = json.loads(dump_recipe(recipe))
    found = [f"{key} {old[key]}, now {new[key]}" for key in new if key in old and old[key] != new[key]]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            f"{path}: made differently: {'; '.join(found[:3])}{more}; resume with that recipe, or start a new training "
            "from its weights (start: FILE)"
        )


def trim_log(path: Path, last: int) -> None:
    """Remove what the log says of steps after ``last``: a resumed training does them again."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    kept = [line for line in lines if _step(line) <= last]
    if len(kept) < len(lines):
        with atomic_file(path) as file:
            file.writelines(kept)


def _step(line: bytes) -> float:
    """The step of a line; a line that was cut off is after all others."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
