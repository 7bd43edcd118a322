"""The command line: finds the command, parses its flags, turns errors into one line and an exit code.

Exit codes: 0 done, 1 internal error or output not writable, 2 usage, 3 input unreadable, 4 weights missing or wrong,
5 done in part, 130 interrupted. Commands are imported when they are used, so that help is instant.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidseg import __version__
from vidseg.errors import VidsegError, did_you_mean
from vidseg.names import printable

COMMANDS: dict[str, tuple[str, str]] = {  # MODULE:CLASS in vidseg_pipelines.commands, and what it does
    "run": ("run:RunCommand", "segment the objects of a video"),
    "image": ("image:ImageCommand", "segment images from boxes, points or automatically"),
    "batch": ("batch:BatchCommand", "segment many videos; continues where it stopped"),
    "batch status": ("batch:StatusCommand", "progress of a batch"),
    "eval davis": ("eval_videos:DavisCommand", "J&F of DAVIS 2017"),
    "eval ytvis": ("eval_videos:YtvisCommand", "tube AP of YouTube-VIS"),
    "eval hq-ytvis": ("eval_videos:HqYtvisCommand", "tube mask AP and boundary AP of HQ-YTVIS"),
    "eval coco": ("eval_images:CocoCommand", "mask AP and boundary AP of COCO and UVO"),
    "eval lvis": ("eval_images:LvisCommand", "mask AP and boundary AP of LVIS"),
    "eval masks": ("eval_images:MasksCommand", "mIoU and mBIoU of two folders of masks"),
    "eval vos": ("eval_videos:VosCommand", "J&F of YouTube-VOS and MOSE-like folders"),
    "reproduce": ("reproduce:ReproduceCommand", "run a whole benchmark or a table of the HQ-SAM paper"),
    "train hq": ("train:TrainHqCommand", "train the HQ parts of a frozen SAM"),
    "train base": ("train:TrainBaseCommand", "train the embedded compact SAM"),
    "train objectness": (
        "train_objectness:TrainObjectnessCommand",
        "train the objectness score of the compact model",
    ),
    "train xmem": ("train_xmem:TrainXmemCommand", "train the embedded compact XMem"),
    "export": ("export:ExportCommand", "convert a finished run to other formats"),
    "export-onnx": ("export_onnx:ExportOnnxCommand", "export encoder and decoder as ONNX files"),
    "weights list": (
        "weights:ListCommand",
        "weights that load by name, with source and licence",
    ),
    "weights fetch": ("weights:FetchCommand", "download and verify weights"),
    "weights verify": ("weights:VerifyCommand", "check a file against the catalogue"),
    "weights convert": (
        "weights:ConvertCommand",
        "convert official or Hugging Face files to safetensors",
    ),
    "ui": ("ui:UiCommand", "click, see, run and correct in the browser"),
    "doctor": ("doctor:DoctorCommand", "show versions, devices, codecs, weights"),
}

ALIASES = {"bench-run": "reproduce"}  # former names, which keep working for one version


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
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
    debug = "--debug" in args
    rest = [a for a in args[len(name.split()) :] if a != "--debug"]
    try:
        return _run(name, rest)
    except VidsegError as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) left: not an error
        return 0
    except Exception as error:
        hint = "" if debug else " (--debug shows where)"
        return _fail(f"internal error: {type(error).__name__}: {error}{hint}", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"vidseg: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _overview(names: Sequence[str] = tuple(COMMANDS)) -> str:
    width = max(len(name) for name in names)
    rows = "\n".join(f"  vidseg {name:<{width}}  {COMMANDS[name][1]}" for name in names)
    return f"vidseg {__version__}: video in, accurate and identity-stable object masks out\n\n{rows}\n\n" + (
        "Each command explains its options and shows examples with --help; --debug shows where an error comes from."
    )


def _run(name: str, args: list[str]) -> int:
    import tyro

    from vidseg.config import load_yaml

    command = find_command(name)
    extra: dict[str, Any] = {}
    path = _flag_value(args, "--config")
    if path is not None and getattr(command, "CONFIG_IS_DEFAULTS", False):
        extra["default"] = load_yaml(command, Path(path))
    parsed = tyro.cli(
        command,
        args=args,
        prog=f"vidseg {name}",
        description=inspect.getdoc(command),  # whole: without this, examples are left out
        config=(tyro.conf.FlagCreatePairsOff,),
        **extra,
    )
    return int(parsed.run())


def find_command(name: str) -> Any:
    """The class of a command in :data:`COMMANDS`, imported now."""
    module, attribute = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(f"vidseg_pipelines.commands.{module}"), attribute)


def _flag_value(args: Sequence[str], flag: str) -> str | None:
    for place, arg in enumerate(args):
        if arg == flag and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return None
