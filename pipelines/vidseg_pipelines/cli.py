"""The command line: finds the command, parses its flags, turns errors into one line and an exit code.

Exit codes: 0 done, 1 internal error or output not writable, 2 usage, 3 input unreadable, 4 weights missing or wrong,
5 done in part, 130 interrupted. Commands are imported when they are used, so that help is instant.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidseg import __version__
from vidseg.errors import VidsegError, did_you_mean
from vidseg.names import printable
from vidseg_pipelines.commands.table import ALIASES, COMMANDS, find_command

__all__ = ["COMMANDS", "find_command", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        code = _answer(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) left: not an error
        return 0
    return code


def _answer(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"vidseg {__version__}")
        return 0
    group = [name for name in COMMANDS if name.startswith(f"{args[0]} ") and args[0] not in COMMANDS]
    if group and (len(args) == 1 or args[1] in ("-h", "--help")):
        print(_overview(group))
        return 0
    args[0] = ALIASES.get(args[0], args[0])
    pair = " ".join(args[:2])
    name = pair if group or pair in COMMANDS else args[0]  # 'batch' is a command and begins one, 'eval' begins some
    if name not in COMMANDS:
        print(f"vidseg: unknown command '{name}'{did_you_mean(name, COMMANDS)}; see vidseg --help", file=sys.stderr)
        return 2
    debug, events = "--debug" in args, "--json-log" in args
    rest = [a for a in args[len(name.split()) :] if a != "--debug"]
    try:
        return _run(name, rest)
    except VidsegError as error:
        return _fail(str(error), error.exit_code, debug, events)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug, events)
    except BrokenPipeError:
        raise
    except Exception as error:
        hint = "" if debug else " (--debug shows where)"
        return _fail(f"internal error: {type(error).__name__}: {error}{hint}", 1, debug, events)


def _fail(message: str, code: int, debug: bool, events: bool) -> int:
    """Say why a command failed: one line, of JSON where the user wants ``events``."""
    if debug:
        traceback.print_exc()
    text = " ".join(message.split())
    event = json.dumps({"event": "error", "text": text, "exit_code": code})
    print(event if events else f"vidseg: {printable(text)}", file=sys.stderr)
    return code


def _overview(names: Sequence[str] = tuple(COMMANDS)) -> str:
    width = max(len(name) for name in names)
    rows = "\n".join(f"  vidseg {name:<{width}}  {COMMANDS[name][1]}" for name in names)
    return f"vidseg {__version__}: video in, accurate and identity-stable object masks out\n\n{rows}\n\n" + (
        "Each command explains its options and shows examples with --help; --debug shows where an error comes from."
    )


def _run(name: str, args: list[str]) -> int:
    command = find_command(name)
    if {"-h", "--help"} & {*args}:
        from vidseg_pipelines.commands.help import help_text

        print(help_text(name, command, grouped=name in ("run", "batch")))
        return 0

    import tyro

    from vidseg.config import load_config
    from vidseg_pipelines.commands.usage import one_line

    extra: dict[str, Any] = {}
    path = _flag_value(args, "--config")
    if path is not None and getattr(command, "CONFIG_IS_DEFAULTS", False):
        extra["default"] = load_config(command, Path(path))

    def parse(**extra: Any) -> Any:
        with one_line(name, command):
            return tyro.cli(
                command,
                args=args,
                prog=f"vidseg {name}",
                description=inspect.getdoc(command),  # whole: without this, examples are left out
                config=(tyro.conf.FlagCreatePairsOff,),
                **extra,
            )

    if hasattr(command, "defaults_for") and {"--continue", "--resume"} & {*args}:
        earlier = command.defaults_for(parse(**extra))
        extra = extra if earlier is None else {"default": earlier}
    return int(parse(**extra).run())


def _flag_value(args: Sequence[str], flag: str) -> str | None:
    for place, arg in enumerate(args):
        if arg == flag and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return None
