"""Why arguments were refused, in one line: the parser itself draws a box around its reasons."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

from vidseg.errors import UsageError, did_you_mean

_FRAME = re.compile(r"^[│|] ?|\s*[│|]?$")
_RULE = re.compile(r"[\s╭╮╰╯│─|+-]*")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WIDE = "2000"
"""Columns of the terminal that the parser is shown, so that no value is cut at the end of a line."""
_PLAINER = (
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 \2: a whole number expected"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1 \2: a number expected"),
    (r"Missing value for argument '(.*?)'\..*", r"\1: a value is missing"),
    (r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*)\)\.", r"\2 '\1': allowed are \3"),
    (r"Unrecognized options: (.*)", r"unexpected argument \1"),
)


@contextlib.contextmanager
def one_line(name: str, command: type) -> Iterator[None]:
    """Raise ``UsageError`` where parsing arguments of a command called ``name`` ends in a box on standard error."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), _wide_terminal():
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_reason(command, box.getvalue())}; see vidseg {name} --help") from None
    sys.stderr.write(box.getvalue())


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDE
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _reason(command: type, box: str) -> str:
    from vidseg_pipelines.commands.options import options_of

    options = options_of(command)
    lines = [_FRAME.sub("", line) for line in _COLORS.sub("", box).splitlines() if not _RULE.fullmatch(line)][1:]
    for flag in _unrecognized(lines):
        known = [option.flag for option in options if option.flag]
        if flag in known:
            return f"{flag} is set already"
        return f"unknown option '{flag}'{did_you_mean(flag, known)}"
    if lines[0].strip().startswith("Missing from "):
        named = {line.split()[0] for line in lines if line.strip()}
        missing = [option for option in options if option.required and (option.flag or option.metavar) in named]
        return f"missing: {', '.join(f'{option.flag} {option.metavar}'.strip() for option in missing)}"
    message = lines[0].strip()
    for pattern, plainer in _PLAINER:
        message = re.sub(pattern, plainer, message)
    return message


def _unrecognized(lines: list[str]) -> list[str]:
    """Options among the arguments that the parser does not know; it names them after a colon or below it."""
    for place, line in enumerate(lines):
        head, _, tokens = line.strip().partition("Unrecognized options:")
        if not head and tokens:
            listed = tokens.split(", ")
        elif line.strip() == "Unrecognized options:":
            listed = lines[place + 1 :]
        else:
            continue
        return [token.strip().partition("=")[0] for token in listed if re.match(r"\s*--?[a-zA-Z]", token)]
    return []
