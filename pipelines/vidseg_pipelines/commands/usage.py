"""Why arguments were refused, in one line: the parser itself draws a box around its reasons."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence

from vidseg.errors import UsageError, did_you_mean

_FRAME = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|^\s*[|+]|[|+]\s*$|-{4,}")
"""What a box is drawn with, colours, and what stands for it where a terminal has ASCII only."""
_PLAINER = (
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 \2: a whole number expected"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1 \2: a number expected"),
    (r"Missing value for argument '(.*?)'\..*", r"\1: a value is missing"),
    (r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*)\)\.", r"\2 '\1': allowed are \3"),
    (r"Unrecognized options: (.*)", r"unexpected argument \1"),
)


@contextlib.contextmanager
def one_line(name: str, command: type, args: Sequence[str]) -> Iterator[None]:
    """Raise ``UsageError`` where parsing ``args`` for a command called ``name`` ends in a box on standard error."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_reason(command, args, box.getvalue())}; see vidseg {name} --help") from None


def _reason(command: type, args: Sequence[str], box: str) -> str:
    from vidseg_pipelines.commands.options import options_of

    options = options_of(command)
    flags = [option.flag for option in options if option.flag]
    for arg in args[: args.index("--")] if "--" in args else args:
        flag = arg.partition("=")[0]
        if flag.startswith("-") and flag.replace("_", "-").rstrip("-") not in flags and not _is_number(flag):
            return f"unknown option '{flag}'{did_you_mean(flag, flags)}"
    lines = [_FRAME.sub("", line).strip() for line in box.splitlines()]
    if any(line.startswith("Missing from ") for line in lines):
        named = {line.split()[0] for line in lines if line}
        missing = [option for option in options if option.required and (option.flag or option.metavar) in named]
        return f"missing: {', '.join(f'{option.flag} {option.metavar}'.strip() for option in missing)}"
    message = " ".join(lines[1 : next((k for k, line in enumerate(lines) if k > 1 and not line), len(lines))])
    for pattern, plainer in _PLAINER:
        message = re.sub(pattern, plainer, message)
    return message


def _is_number(text: str) -> bool:
    return re.match(r"-\.?\d", text) is not None
