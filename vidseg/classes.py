"""Class names and the numbers that files give them: of a class file, of a detector, or of the names that occur."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg.errors import InputError, UsageError
from vidseg.names import check_label
from vidseg.options import parse_yaml
from vidseg.text import read_text

UNNAMED = "object"
"""Class of the objects that have no name."""


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Numbers of classes by name, in the order of the numbers."""

    ids: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """All names, in the order of their numbers."""
        return list(self.ids)

    def name_of(self, label: str | None) -> str:
        """The class of a label: itself, or :data:`UNNAMED` for None."""
        return UNNAMED if label is None else label

    def id_of(self, label: str | None) -> int:
        """Number of a class; None is :data:`UNNAMED`."""
        return self.ids[self.name_of(label)]

    def rank_of(self, label: str | None) -> int:
        """Place of a class among all, from 1: for formats whose numbers have no gaps."""
        return self.names.index(self.name_of(label)) + 1

    def including(self, labels: Iterable[str | None]) -> ClassSet:
        """With classes for all ``labels``; those that are missing follow the highest number, in alphabetical order.

        A missing label that is a number of its own, as of a detector without names, keeps it where it is free.
        """
        ids = dict(self.ids)
        named = {label for label in labels if label is not None}
        for label in sorted(named - ids.keys()):
            if label.isascii() and label.isdecimal() and int(label) not in {0, *ids.values()}:
                ids[label] = int(label)
        after = max(ids.values(), default=0) + 1
        new = sorted(named - ids.keys()) + ([UNNAMED] if None in labels and UNNAMED not in {*ids, *named} else [])
        ids.update({name: after + k for k, name in enumerate(new)})
        return ClassSet(dict(sorted(ids.items(), key=lambda item: item[1])))


def read_classes(path: Path) -> ClassSet:
    """Classes of a file: a name per line (numbers from 1), or YAML or JSON.

    YAML and JSON are a list of names, a mapping of numbers to names or of names to numbers, a ``data.yaml`` with
    ``names``, or COCO with ``categories``.

    Raises:
        UsageError: no such file, no names in it, a name or number twice, a name with control characters, a number
            below 0.
    """
    try:
        text = read_text(path)
    except InputError as error:
        raise UsageError(f"--classes {error}") from error
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        try:
            pairs = _pairs(parse_yaml(text))
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"--classes {path}: a list of names, a mapping of numbers and names, or COCO categories expected"
            ) from error
    else:
        pairs = list(enumerate((line.strip() for line in text.splitlines() if line.strip()), 1))
    if not pairs:
        raise UsageError(f"--classes {path}: no names in it")
    ids: dict[str, int] = {}
    for number, name in pairs:
        check_label(f"--classes {path}: class {number}", name)
        if name in ids:
            raise UsageError(f"--classes {path}: '{name}' appears twice, as {ids[name]} and {number}")
        if number < 0 or number in ids.values():
            problem = "used twice" if number >= 0 else "below 0"
            raise UsageError(f"--classes {path}: the number {number} of '{name}' is {problem}")
        ids[name] = number
    return ClassSet(dict(sorted(ids.items(), key=lambda item: item[1])))


def _pairs(data: Any) -> list[tuple[int, str]]:
    """Numbers and names of what a YAML or JSON file holds."""
    if isinstance(data, Mapping) and isinstance(data.get("categories"), list):
        return [(int(row["id"]), str(row["name"])) for row in data["categories"]]
    if isinstance(data, Mapping) and isinstance(data.get("names"), (list, Mapping)):
        data = dict(enumerate(data["names"])) if isinstance(data["names"], list) else data["names"]
    if isinstance(data, Mapping):
        items = [(key, value) if isinstance(key, int) else (value, key) for key, value in data.items()]
        return [(int(number), str(name)) for number, name in items]
    if not isinstance(data, list):
        raise TypeError
    return list(enumerate((str(name) for name in data), 1))
