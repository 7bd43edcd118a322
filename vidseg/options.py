"""Options that people write - YAML files, KEY=VALUE texts, mappings - as checked dataclasses.

Plain values follow the core schema of YAML 1.2: ``1e-3`` is a number, while ``1:30`` and ``no`` are texts. What an
option takes decides in the end: ``no``, ``off`` and ``1_000`` mean what they say where a bool or an int is expected.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from vidseg.errors import InputError, UsageError, did_you_mean
from vidseg.text import read_text

T = TypeVar("T")


def load_yaml(cls: type[T], path: Path, **overrides: Any) -> T:
    """A dataclass from a YAML file; ``overrides`` win.

    Raises:
        UsageError: the file is missing, no mapping, has a key that the dataclass lacks or a value of another type.
    """
    try:
        data = parse_yaml(read_text(path))
    except InputError as error:
        raise UsageError(f"cannot read the configuration: {error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise UsageError(f"{path}: expected a mapping of options, got {type(data).__name__}")
    return from_mapping(cls, {**(data or {}), **overrides}, where=str(path))


def key_values(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts of a flag as a mapping; values are read as YAML.

    Raises:
        UsageError: a text without a key or a value, or a value that is no YAML.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            if not equals or not key.strip():
                raise ValueError
            values[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"{flag} {text}: expected KEY=VALUE") from error
    return values


def parse_yaml(text: str) -> Any:
    """The content of one YAML document, scalars as in YAML 1.2.

    Raises:
        ValueError: no YAML, or a mapping with a key twice; the message is one line.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """Safe, with the scalars of YAML 1.2, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (not those of YAML 1.1)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' appears twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Decimal also with leading zeros, unlike in YAML 1.1."""
        text = str(node.value)
        try:
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        except ValueError:
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def from_mapping(cls: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """A (nested) dataclass from a mapping. Unknown keys and values of another type are a UsageError."""
    values = checked_values(cls, data, where=where)
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where}: option '{missing[0]}' is missing")
    return cls(**values)


def checked_values(cls: type, data: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Values for fields of a dataclass, each of its type. Unknown keys and values of another type are a UsageError."""
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for raw, value in data.items():
        key = str(raw).replace("-", "_")
        key = key if key in hints or f"{key}_" not in hints else f"{key}_"  # "from" is no name in Python
        if key not in hints:
            hint = did_you_mean(key, hints) or f": allowed are {', '.join(hints)}"
            raise UsageError(f"{where}: unknown option '{raw}'{hint}")
        if key in values:
            raise UsageError(f"{where}: option '{raw}' appears twice")
        values[key] = _coerce(hints[key], value, f"{where}: {raw}")
    return values


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of the fields of a dataclass; finding them takes as long as checking thousands of values."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def plain_value(hint: Any, value: Any) -> Any:
    """What ``value`` means for an option of the type ``hint``: ``no`` for a bool, ``1_000`` and 1e3 for an int, ...

    Anything else is returned as it is, to be checked by the caller.
    """
    if hint is bool and isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    if hint in (int, float) and isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_]*_[\d_]*(\.\d*)?", value):
        value = float(value.replace("_", "")) if "." in value else int(value.replace("_", ""))
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a mapping, got {value!r}")
        return from_mapping(hint, value, where=where)
    if origin is Literal:
        if value not in args:
            close = did_you_mean(str(value), map(str, args))
            raise UsageError(f"{where}: {value!r} is not allowed{close}: use one of {', '.join(map(str, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        args = tuple(arg for arg in args if arg is not type(None))
        errors: list[UsageError] = []
        for arg in sorted(args, key=dataclasses.is_dataclass, reverse=isinstance(value, Mapping)):
            try:
                return _coerce(arg, value, where)
            except UsageError as error:
                errors.append(error)
        raise errors[0]
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_coerce(args[0], item, where) for item in items)
        if len(items) != len(args):
            raise UsageError(f"{where}: expected {len(args)} values, got {value!r}")
        return tuple(_coerce(arg, item, where) for arg, item in zip(args, items, strict=True))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected a mapping, got {value!r}")
        return {_coerce(args[0], k, where): _coerce(args[1], v, f"{where}: {k}") for k, v in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    value = plain_value(hint, value)
    if hint in (int, float, str, bool, Path) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        quote = "; put it in quotes" if hint in (str, Path) and isinstance(value, (bool, int, float)) else ""
        raise UsageError(f"{where}: expected {_article(hint.__name__)}, got {value!r}{quote}")
    return value


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
