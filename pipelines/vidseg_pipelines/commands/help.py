"""What ``vidseg COMMAND --help`` prints: the options in groups, as wide as the terminal."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence

from vidseg_pipelines.commands.options import Option, options_of

GROUPS: Mapping[str, Sequence[str]] = {
    "input": ("input", "inputs", "frames", "stream", "deinterlace", "reader", "max_pixels"),
    "prompts": ("box", "point", "mask", "from_", "boxes", "label", "classes", "remove"),
    "finding objects": ("text", "detect_with", "detect_every", "detector_option", "max_objects"),
    "models": ("tracker", "tracker_option", "model", "refine", "zoom", "direction", "offline"),
    "output": ("output", "save", "overlay_style", "video_id", "overwrite"),
    "going on with a run": ("resume", "continue_", "continue_from", "keep_states", "snapshot_every"),
    "speed": ("device", "dtype", "compile", "batch", "keep_still"),
    "live sources and slow files": ("drop", "reconnect", "read_timeout"),
    "many videos": (
        "workers",
        "records",
        "engine",
        "engine_option",
        "retry_failed",
        "lease_timeout",
        "video_timeout",
        "video_memory",
        "metrics_port",
        "parquet_rows",
    ),
    "terminal and settings": ("quiet", "verbose", "json", "json_log", "config", "help"),
}
"""Groups of the options of ``vidseg run`` and ``vidseg batch``, by field."""
OTHER = "options"
_HELP = Option("help", "--help", "", (), "Show this help.", "", required=False, many=False)
_INDENT = 6
_WIDEST = 100


def help_text(name: str, command: type, *, grouped: bool = False) -> str:
    """The help of a command called ``name``; ``grouped``: its options are in :data:`GROUPS`."""
    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)
    options = [*options_of(command), _HELP]
    arguments = [option for option in options if not option.flag]
    named = [option.flag + " " + option.metavar for option in options if option.flag and option.required]
    usage = " ".join(["vidseg", name, *map(_argument, arguments), *named, "[OPTIONS]"])
    parts = [f"usage: {usage}", _wrapped(inspect.getdoc(command) or "", width)]
    for title, members in _groups(options, grouped).items():
        parts.append("\n".join([f"{title}:", *(line for option in members for line in _lines(option, width))]))
    return "\n\n".join(parts)


def _wrapped(text: str, width: int) -> str:
    """Paragraphs as wide as the terminal; examples, which are indented, as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if "\n " in p else textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs)


def _groups(options: Sequence[Option], grouped: bool) -> dict[str, list[Option]]:
    groups: dict[str, list[Option]] = {}
    place = {field: title for title, fields in GROUPS.items() for field in fields} if grouped else {}
    for title in GROUPS if grouped else ("arguments",):
        groups[title] = []
    for option in options:
        title = place.get(option.name, OTHER) if option.flag or grouped else "arguments"
        groups.setdefault(title, []).append(option)
    return {title: members for title, members in groups.items() if members}


def _argument(option: Option) -> str:
    name = option.metavar + ("..." if option.many else "")
    return name if option.required else f"[{name}]"


def _lines(option: Option, width: int) -> list[str]:
    """``--flag VALUE`` on a line, its help below it."""
    head = f"  {option.flag} {option.metavar}".rstrip() if option.flag else f"  {_argument(option).strip('[]')}"
    told = option.help
    if len(head) > width and option.choices:
        head, told = f"  {option.flag} NAME", f"{told} One of {', '.join(option.choices)}."
    told += f" (default: {option.default})" if option.default else ""
    told += " (required)" if option.required and option.flag else ""
    body = textwrap.wrap(told.strip(), width - _INDENT, break_on_hyphens=False, break_long_words=False)
    return [head, *(" " * _INDENT + line for line in body)]
