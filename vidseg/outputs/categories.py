"""Category numbers for formats that want them, from the labels of a journal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vidseg.outputs.journal import read_journal


def category_ids(journal: Path) -> Mapping[str | None, int]:
    """Number of every label: a label that is a number keeps it; names follow in alphabetical order; no label is 1."""
    labels = {label for masks in read_journal(journal) for label in masks.labels}
    names = {label for label in labels if label is not None}
    numbers = {name: int(name) for name in names if name.isdecimal()}
    first = max(numbers.values(), default=0) + 1
    named = {name: first + k for k, name in enumerate(sorted(names - numbers.keys()))}
    ids: dict[str | None, int] = {None: 1}
    ids.update(numbers)
    ids.update(named)
    return ids
