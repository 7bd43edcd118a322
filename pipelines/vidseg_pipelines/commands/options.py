"""The options of a command, read off its dataclass: for its help and for shell completion."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

_METAVARS = {str: "TEXT", Path: "PATH", int: "N", float: "X"}


@dataclass(frozen=True)
class Option:
    """One option as a user types it."""

    name: str
    """Field of the dataclass."""
    flag: str
    """``--name``; empty: a positional argument."""
    metavar: str
    """What its value is called; empty: a switch."""
    choices: tuple[str, ...]
    """All values that it takes, if they are few."""
    help: str
    default: str
    """As typed; empty where there is none, or none that would tell anything."""
    required: bool
    many: bool
    """A positional argument that takes several values."""


def options_of(command: type) -> list[Option]:
    """The options of a command, in the order of its fields."""
    hints = typing.get_type_hints(command, include_extras=True)
    texts = _docstrings(command)
    return [
        _option(f, hints[f.name], texts.get(f.name, ""))
        for f in dataclasses.fields(command)
        if f.init and tyro.conf.Suppress not in getattr(hints[f.name], "__metadata__", ())
    ]


def _option(f: dataclasses.Field[Any], hint: Any, text: str) -> Option:
    extras = getattr(hint, "__metadata__", ())
    given = {name: value for extra in extras for name in ("name", "metavar", "help") if (value := _of(extra, name))}
    kind = _plain(hint)
    positional = tyro.conf.Positional in extras
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    choices = tuple(map(str, args)) if origin is Literal else ()
    if choices:
        metavar = "|".join(choices)
    elif origin in (tuple, dict):
        metavar = "KEY VALUE" if origin is dict else _METAVARS.get(args[0], "VALUE")
        metavar += "" if tyro.conf.UseAppendAction in extras or positional else "..."
    else:
        metavar = "" if kind is bool else _METAVARS.get(kind, "VALUE")
    required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    default = "" if f.default is dataclasses.MISSING else _shown(f.default)
    text = str(given.get("help") or text)
    return Option(
        f.name,
        "" if positional else "--" + str(given.get("name") or f.name).strip("_").replace("_", "-"),
        str(given.get("metavar") or metavar),
        choices,
        " ".join(text.split()),
        "" if "default:" in text or positional else default,
        required,
        positional and origin is tuple,
    )


def _of(extra: object, name: str) -> object:
    """A setting of ``tyro.conf.arg``, which gives an object with these attributes."""
    return getattr(extra, name, None) if hasattr(extra, "help_behavior_hint") else None


def _plain(hint: Any) -> Any:
    """A type without what is annotated, and without None."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _plain(kinds[0])
    return hint


def _shown(default: object) -> str:
    """A default worth telling: not None, empty or off."""
    if default is None or isinstance(default, bool) or default in ("", (), ":"):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _docstrings(command: type) -> dict[str, str]:
    """The texts below the fields of a dataclass and of those that it inherits from."""
    texts: dict[str, str] = {}
    for cls in reversed(command.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for here, after in zip(tree.body, tree.body[1:], strict=False):
            if not (isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[here.target.id] = str(after.value.value)
    return texts
